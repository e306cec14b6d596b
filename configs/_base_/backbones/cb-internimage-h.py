# CB-InternImage-H, two InternImage-H for detection. It is published only as part of detectors, with results that were
# measured with half-precision gammas, the factors on what the second backbone takes from the first.
_base_ = '../checkpoints.py'
backbone = dict(type='CBInternImage', arch='huge', drop_path_rate=0.5, half_gammas=True)
channels = [320, 640, 1280, 2560]
