# The first base of a segmentation config. The package is imported before the other bases are read, so that MMEngine
# finds those called mmseg::... in the onedl fork; not by an import statement, which may be taken for the lazy style.
__import__('mmcv_custom')
custom_imports = dict(imports=['mmcv_custom', 'mmseg_custom'], allow_failed_imports=False)
