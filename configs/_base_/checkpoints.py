# Where the official checkpoints are.
checkpoints = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
