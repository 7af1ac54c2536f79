"""Training losses: small pure functions over images in [0, 1] and over model outputs.

Unless stated otherwise a loss keeps the leading axes (one value an image), so that the objective
weighs and averages. Import the modules: `adversarial`, `identity`, `lpips`, `photometric`,
`region`, `residual`.
"""
