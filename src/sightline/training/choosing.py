"""Which recipe ``auto`` takes, by the number and the size of the images; nothing here loads torch."""

from sightline.data.sizing import SMALL_SIDE

__all__ = ["choose_recipe"]

MANY_SMALL = 10_000  # images up to 64 px; from here on the few large batches of ``fast`` are enough steps


def choose_recipe(images: int, size: tuple[int, int], fraction: float = 1.0) -> tuple[str, str]:
    """Choose a recipe by the number and the size of the images, of which a fraction will be trained on.

    Args:
        images: how many.
        size: (height, width) of the median image, in pixels.
        fraction: that is trained on.
    Returns:
        Its name, and why in words.
    """
    count, side = round(images * fraction), max(size)
    if side > SMALL_SIDE:
        return "photos", f"{count:,} images of {side} px: photographs, for which a pretrained network is tried first"
    many = count >= MANY_SMALL
    return "fast" if many else "small", f"{count:,} images of {side} px: {'many' if many else 'few'}, small"
