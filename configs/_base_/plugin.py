# Imports mmcv_custom, which lets MMEngine find the bases mmseg::... in the onedl fork. Not an import statement, because
# MMEngine may take that for its lazy style.
__import__('mmcv_custom')
