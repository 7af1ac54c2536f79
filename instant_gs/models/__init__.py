"""The networks. The only package that imports flax."""

from instant_gs.models.avatar_model import AvatarModel, build

__all__ = ["AvatarModel", "build"]
