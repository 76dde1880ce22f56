"""Which tower features are of: one name for the tower's weights and the preprocessing, on disk and in memory."""

import hashlib

from medmoe.model.config import MedMoEConfig
from medmoe.model.vision_tower import VisionTower


def tower_fingerprint(tower: VisionTower, config: MedMoEConfig) -> str:
    """16 hexadecimal digits. Of the weights' values: a tower stored in 16 bit is another than its original."""
    digest = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().cpu().numpy().tobytes())
    digest.update(config.image_processor.model_dump_json().encode())
    # A field that a later version adds, with a default that changes nothing, must not throw features away.
    digest.update(config.vision_config.model_dump_json(exclude_defaults=True).encode())
    return digest.hexdigest()[:16]
