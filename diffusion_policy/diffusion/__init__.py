"""The mathematics of diffusion: schedules, the process, samplers, weight averaging. Knows no robots, no networks.

Reading order: `schedule` (how much noise), `process` (noising, targets, loss), `solvers` (noise to sample),
`samplers` (these by name), `bridge` (anybody else's samplers, from diffusers), `ema`.

Letters: x0 clean sample, x_t = a_t x0 + s_t eps, alpha_bar = a^2 = 1 - s^2; T training timesteps, N inference
steps; B batch, *E the event's shape (Tp, Da for action chunks).
"""
