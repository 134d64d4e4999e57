"""Features: bases an edit can act in. One a file; a fitter keeps running state, the fitted basis is frozen.

Every basis is a frozen dataclass with `encode`, `decode`, `width` (of what it reads) and `n_features` (of what it
gives); its file assigns ``FEATURIZER``, by which `saving.load_featurizer` finds it again. A basis whose features are
coordinates along orthonormal directions also has `axes`, [width, n_features].
"""
