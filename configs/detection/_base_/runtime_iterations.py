# The runtime of detectors whose schedule counts iterations.
_base_ = 'runtime.py'
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
