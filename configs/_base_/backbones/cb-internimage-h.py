# CB-InternImage-H, two InternImage-H for detection, published as part of whole detectors.
_base_ = '../checkpoints.py'
backbone = dict(type='CBInternImage', arch='huge', drop_path_rate=0.5, half_gammas=True)
channels = [320, 640, 1280, 2560]
