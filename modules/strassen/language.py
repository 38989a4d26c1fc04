"""The paper's character language model with SPN layers (Kim et al.'s LSTM-Char-Large, section 4.2 of the paper).

The ordinary network comes from outside: any with ``words`` (convolutions over characters), ``highways``, ``lstm`` and
``decoder``, such as the character model of the born-again networks.
"""

from typing import Literal

from torch import nn

from modules.components.options import above
from modules.strassen.conversion import Rule, SPNNetwork

MAGNITUDE = 3.0
"""Of the Xavier initialisation in language models."""
DECODER_SHARE = 0.2
"""r of the decoder over the words: 2000 for 10,000 at rho = 1."""


class SPNLanguageModel(SPNNetwork):
    """Character convolutions with a ternary first map alone, SPNs for highways, LSTM and decoder.

    A batch norm follows each highway layer, as in the authors' code. The convolutions' inner norms see the windows that
    reach over the end of a word, too.

    Args:
        network: the ordinary one; it is changed.
        ratio: rho: r is rho times the outputs in highways and LSTM, and rho / 5 times the words in the decoder.
        quantizer: ``rescaled`` or ``fixed``; the authors' language model has the rescaled one.

    Raises:
        ValueError: if the network lacks one of these parts.
    """

    def __init__(
        self, network: nn.Module, ratio: float = 1.0, quantizer: Literal["rescaled", "fixed"] = "rescaled"
    ) -> None:
        if missing := [name for name in ("words", "highways", "lstm", "decoder") if not hasattr(network, name)]:
            raise ValueError(f"a {type(network).__name__} has no {', '.join(missing)}: give a character language model")
        above(0, ratio=ratio)
        highways = getattr(network, "highways")  # noqa: B009, mypy would take it for a tensor
        for place, highway in enumerate(highways):
            highways[place] = nn.Sequential(highway, nn.BatchNorm1d(highway.gate.out_features))
        rules = [
            Rule(r"words\..*", "conv1d", quantizer=quantizer, magnitude=MAGNITUDE),
            Rule(r"highways\..*", "linear", ratio=ratio, quantizer=quantizer, magnitude=MAGNITUDE),
            Rule("lstm", "lstm", ratio=ratio, quantizer=quantizer, magnitude=MAGNITUDE),
            Rule("decoder", "linear", ratio=ratio * DECODER_SHARE, quantizer=quantizer, magnitude=MAGNITUDE),
        ]
        super().__init__(network, rules)
        for name, parameter in self.named_parameters():
            if "gate" in name and name.endswith(".bias"):
                nn.init.uniform_(parameter, -2.05, -1.95)  # the authors subtract the 2 from the gate's input
