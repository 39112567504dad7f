"""Names of what pool/ labels, one list for all its sets: index 0 is nothing, 255 is ignored."""

from __future__ import annotations

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
CAMVID = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
CCP = (
    "accessories", "bag", "belt", "blazer", "blouse", "bodysuit", "boots", "bra", "bracelet", "cape", "cardigan",
    "clogs", "coat", "dress", "earrings", "flats", "glasses", "gloves", "hair", "hat", "heels", "hoodie", "intimate",
    "jacket", "jeans", "jumper", "leggings", "loafers", "necklace", "panties", "pants", "pumps", "purse", "ring",
    "romper", "sandals", "scarf", "shirt", "shoes", "shorts", "skin", "skirt", "sneakers", "socks", "stockings",
    "suit", "sunglasses", "sweater", "sweatshirt", "swimwear", "t-shirt", "tie", "tights", "top", "vest", "wallet",
    "watch", "wedges",
)  # fmt: skip
# The value v of a mask of these sets is the class v - 1; coco_mval names its one class in the file name.
VALUES = {"voc": VOC, "camvid": CAMVID, "ccp": CCP}

# Other words for the same thing, drawn now and then, so that the encoder of names does not learn one spelling each.
ALIASES = {
    "aeroplane": ("airplane", "plane", "aircraft"),
    "airplane": ("aeroplane", "plane", "aircraft"),
    "bicycle": ("bike", "cycle"),
    "motorbike": ("motorcycle",),
    "motorcycle": ("motorbike",),
    "sofa": ("couch",),
    "couch": ("sofa",),
    "tv monitor": ("tv", "television", "screen"),
    "tv": ("television", "tv monitor"),
    "potted plant": ("plant", "house plant"),
    "dining table": ("table",),
    "person": ("human", "people", "somebody"),
    "pedestrian": ("person", "people"),
    "bicyclist": ("cyclist", "person on a bicycle"),
    "pavement": ("sidewalk",),
    "car": ("automobile", "cars"),
    "bus": ("coach",),
    "cell phone": ("phone", "mobile phone"),
    "pants": ("trousers",),
    "sneakers": ("trainers",),
    "jumper": ("pullover",),
    "sunglasses": ("shades",),
    "donut": ("doughnut",),
}


def same(a: str, b: str) -> bool:
    """Whether two names may mean one thing, so that one is no proof that the other is absent."""
    return a == b or b in ALIASES.get(a, ()) or a in ALIASES.get(b, ()) or bool(set(a.split()) & set(b.split()))
