"""The categories, a module each."""

from fader.data.synthetic.scene import Recipe
from fader.data.synthetic.scenes import blister, bolt, softgels, weave

CATEGORIES: dict[str, Recipe] = {
    "bolt": bolt.RECIPE,
    "blister": blister.RECIPE,
    "weave": weave.RECIPE,
    "softgels": softgels.RECIPE,
}
