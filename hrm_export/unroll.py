"""The network as the graph sees it: fixed N x T, tensors in and tensors out."""

from torch import Tensor, nn

from hrm_runtime.contract import OUTPUTS
from hrm_train.model import HierarchicalReasoningModel

INPUTS = ("features", "account", "instrument", "timeframe", "z_H", "z_L")


class Unrolled(nn.Module):
    """One segment of `model`, its N x T steps written out over one set of weights."""

    def __init__(self, model: HierarchicalReasoningModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        features: Tensor,
        account: Tensor,
        instrument: Tensor,
        timeframe: Tensor,
        z_H: Tensor,
        z_L: Tensor,
    ) -> tuple[Tensor, ...]:
        """The outputs in the order of `hrm_runtime.contract.OUTPUTS`; shapes as `Model.run`."""
        outputs, (zH_BSD, zL_BSD) = self.model(features, account, instrument, timeframe, (z_H, z_L))
        named = {**outputs, "z_H_out": zH_BSD, "z_L_out": zL_BSD}
        return tuple(named[name] for name in OUTPUTS)
