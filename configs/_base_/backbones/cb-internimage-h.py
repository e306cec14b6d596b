# CB-InternImage-H, two InternImage-H for detection. It is published in whole detectors, with results of half-precision
# layer-scale factors (gammas).
_base_ = '../checkpoints.py'
backbone = dict(type='CBInternImage', arch='huge', drop_path_rate=0.5, half_gammas=True)
channels = [320, 640, 1280, 2560]
