"""Instruction data: conversations and preferences, read in the layouts they are published in or made of a corpus.

    chosen = select(read_conversations("aya.parquet"), languages=FUXITRANYU)     # what was dropped, by reason
    parts = split(chosen.kept, held_out=0.02, seed=0)
    talks = generated({"en": english, "hi": hindi}, 5000, seed=0)                # no data but a corpus

After FuxiTranyu's post-training (arXiv 2408.06273, section 4), whose mixture is not published: OpenHermes 2.5, Aya and
Chinese, mathematical and code instructions for SFT, UltraFeedback for DPO. None of them is part of this package.
"""

from microtome.data.instructions.generated import TASKS, generated, preferences
from microtome.data.instructions.readers import read_conversations, read_preferences
from microtome.data.instructions.schema import ROLES, Conversation, Message, PreferencePair
from microtome.data.instructions.selection import Selected, Split, select, split
from microtome.data.instructions.tags import FUXITRANYU, short_tag

__all__ = [
    "FUXITRANYU",
    "ROLES",
    "TASKS",
    "Conversation",
    "Message",
    "PreferencePair",
    "Selected",
    "Split",
    "generated",
    "preferences",
    "read_conversations",
    "read_preferences",
    "select",
    "short_tag",
    "split",
]
