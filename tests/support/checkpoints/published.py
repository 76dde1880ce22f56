"""Describe the published sizes of Med-MoE: CLIP-L/336 with Phi-2 or StableLM-2, four experts in every second layer."""

from medmoe.model.config import ImageProcessorConfig, MedMoEConfig, TextConfig
from medmoe.training.recipes.published import phi_2, stablelm_1_6b

# As the files hold them: with the tower's last block, which nothing uses, and the rows that pad the vocabulary.
CLIP_L = phi_2().architecture.vision_config.model_copy(update={"num_hidden_layers": 24})
PHI_2 = phi_2().architecture.text_config.model_copy(update={"vocab_size": 51200})
STABLELM_2 = stablelm_1_6b().architecture.text_config.model_copy(update={"vocab_size": 100352})


def published(text: TextConfig) -> MedMoEConfig:
    return MedMoEConfig(
        vision_config=CLIP_L,
        text_config=text,
        image_processor=ImageProcessorConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), background=(0, 0, 0)),
        image_token_id=text.vocab_size,
    )
