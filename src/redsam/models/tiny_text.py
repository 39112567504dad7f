"""Tokenizers for tiny random models: WordPiece over single characters, made in memory."""

from __future__ import annotations

import string
from typing import Any, Literal

# Grounding DINO's own code knows these ids of BERT's vocabulary.
BERT_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
BERT_SIZE = 1100
# CLIP's text towers pool at the highest id of a row, the end mark.
CLIP_SIZE, CLIP_LENGTH = 256, 32


def tiny_tokenizer(kind: Literal["bert", "clip"]) -> Any:
    """A fast tokenizer that spells every lower-case word; `bert` with BERT's special ids, `clip` with a start and an
    end mark of the highest ids."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits + "'-,"
    pieces = [*letters, *(f"##{c}" for c in letters)]
    if kind == "bert":
        ids = dict(BERT_IDS)
        ids |= {piece: 200 + n for n, piece in enumerate(pieces)}
        start, end, pad = "[CLS]", "[SEP]", "[PAD]"
    else:
        ids = {"[PAD]": 0, "[UNK]": 1, ".": 2, "?": 3} | {piece: 10 + n for n, piece in enumerate(pieces)}
        ids |= {"[BOS]": CLIP_SIZE - 2, "[EOS]": CLIP_SIZE - 1}
        start, end, pad = "[BOS]", "[EOS]", "[PAD]"
    core = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=2000))
    core.decoder = decoders.WordPiece()
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    fast: Any = PreTrainedTokenizerFast  # its constructor is untyped
    return fast(tokenizer_object=core, pad_token=pad, unk_token="[UNK]", cls_token=start, sep_token=end)
