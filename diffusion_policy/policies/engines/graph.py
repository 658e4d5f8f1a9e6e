"""A policy prepared for its sampler as functions of tensors: what engines compute and exporters read.

Letters: B batch, To/Tp obs/pred horizon, Da the axes of one action, S denoising steps, F size of a context.
"""

from collections import OrderedDict
from copy import copy

from torch import Tensor, nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.preparation import prepare
from diffusion_policy.models.products import PlainProduct, Product
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy


class PolicyGraph(nn.Module):
    """From observations in env units to the prediction in env units: encoder, all denoising steps, normalisers.

    Args:
        policy: it is put into evaluation mode, and shares all but its denoiser.
        product: how the products of the denoiser are computed.

    Raises:
        ConfigError: it selects among several samples.
    """

    def __init__(self, policy: DiffusionPolicy, product: Product = PlainProduct) -> None:
        super().__init__()
        if policy.selector is not None:
            raise ConfigError(
                "this policy selects among samples by a critic, which engines and exported files do not; run policy.pt "
                "itself"
            )
        policy.eval()
        self.denoiser = prepare(policy.denoiser, policy.sampler.visited(), product)
        self.policy = copy(policy)
        # without the denoiser in training's form, which would be carried along into every file
        self.policy._modules = OrderedDict((k, m) for k, m in policy._modules.items() if k != "denoiser")

    def contexts(self, *obs: Tensor) -> Tensor:
        """Returns what each denoising step needs besides x, (S, B, F).

        Args:
            obs: each field of `obs_spec` in its order, (B, To, *shape).
        """
        cond = self.policy.condition(dict(zip(self.policy.obs_spec, obs, strict=True)))
        return self.denoiser.contexts(cond)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns the prediction (B, Tp, *Da).

        Args:
            inputs: each field of `obs_spec` in its order, (B, To, *shape), then the noise (B, *noise_shape).
        """
        *obs, noise = inputs
        context, sampler = iter(self.contexts(*obs).unbind(0)), self.policy.sampler
        x0 = sampler(lambda x, _: self.denoiser(x, next(context)), *sampler.split(noise))
        flat = self.policy.action_normalizer.unnormalize(x0)  # (B, Tp, numbers of an action)
        return flat.reshape(*flat.shape[:2], *self.policy.action_spec.shape)
