# mypy: disable-error-code="no-untyped-def"
"""The kernels of the gradient of batch norm with its activation in training; see `norm_kernels.py`."""

from __future__ import annotations

from rarevox.networks.cuda.kernels import triton

if triton is not None:
    import triton.language as tl

    from rarevox.networks.cuda.norm_kernels import below, parameters, tile_of

    @triton.jit
    def _reached(x, gradient, n, counted, mean, scale, beta, under, CHANNELS: tl.constexpr, PADDED: tl.constexpr):
        """Of a tile x − mean, a = γ x̂ + β, the gradient of the result, and g' of a: what passes the activation."""
        c = tl.arange(0, PADDED)
        inside = counted[:, None] & (c < CHANNELS)[None, :]
        place = n[:, None] * CHANNELS + c[None, :]
        g = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        distance = tl.where(inside, z - mean[None, :], 0.0)
        a = distance * scale[None, :] + beta[None, :]
        return distance, a, g, tl.where(a <= 0, below(g, under[None, :]), g)

    @triton.jit
    def gradient_sums_kernel(
        x,
        gradient,
        mask,
        weight,
        bias,
        slope,
        statistics,
        partial,
        rows,
        CHANNELS: tl.constexpr,
        REAL: tl.constexpr,
        PADDED: tl.constexpr,
        ROWS: tl.constexpr,
        MASKED: tl.constexpr,
        SLOPED: tl.constexpr,
    ):
        """Σ g', Σ g' x̂ and, for a slope, Σ g·a over a ≤ 0, of a program, to ``partial`` (programs, 3, PADDED)."""
        program, programs = tl.program_id(0), tl.num_programs(0)
        c = tl.arange(0, PADDED)
        mean = tl.load(statistics + c, mask=c < REAL, other=0.0)
        inverse = tl.load(statistics + REAL + c, mask=c < REAL, other=0.0)
        gamma, beta, under = parameters(weight, bias, slope, REAL, PADDED, SLOPED)
        scale = gamma * inverse
        of_bias = tl.zeros([ROWS, PADDED], tl.float32)
        of_weight = tl.zeros([ROWS, PADDED], tl.float32)
        of_slope = tl.zeros([ROWS, PADDED], tl.float32)
        for first in range(program * ROWS, rows, programs * ROWS):
            n, _there, counted = tile_of(first, rows, mask, ROWS, MASKED)
            distance, a, g, reached = _reached(x, gradient, n, counted, mean, scale, beta, under, CHANNELS, PADDED)
            of_bias += reached
            of_weight += reached * distance
            if SLOPED:
                of_slope += tl.where(a <= 0, g * a, 0.0)
        out = partial + program * 3 * PADDED + c
        tl.store(out, tl.sum(of_bias, 0))
        tl.store(out + PADDED, tl.sum(of_weight, 0) * inverse)
        if SLOPED:
            tl.store(out + 2 * PADDED, tl.sum(of_slope, 0))

    @triton.jit
    def _added(partial, programs, PADDED: tl.constexpr, CHUNK: tl.constexpr):
        """The sum of one row of all programs, some at a time."""
        some = tl.arange(0, CHUNK)
        total = tl.zeros([CHUNK, PADDED], tl.float32)
        for start in range(0, programs, CHUNK):
            i = start + some
            place = partial + i[:, None] * 3 * PADDED + tl.arange(0, PADDED)[None, :]
            total += tl.load(place, mask=(i < programs)[:, None], other=0.0)
        return tl.sum(total, 0)

    @triton.jit
    def gradient_kernel(
        x,
        gradient,
        mask,
        weight,
        bias,
        slope,
        statistics,
        partial,
        of_parameters,
        out,
        rows,
        inside,
        programs_before,
        CHANNELS: tl.constexpr,
        REAL: tl.constexpr,
        PADDED: tl.constexpr,
        ROWS: tl.constexpr,
        CHUNK: tl.constexpr,
        MASKED: tl.constexpr,
        SLOPED: tl.constexpr,
    ):
        """γ / √(var + ε) · (g' − (Σ g' + x̂ Σ g' x̂) / N) to ``out``, N voxels being ``inside``.

        The first program leaves the gradients of γ, β and the slope in ``of_parameters`` (3, REAL).
        """
        program, programs = tl.program_id(0), tl.num_programs(0)
        c = tl.arange(0, PADDED)
        of_bias = _added(partial, programs_before, PADDED, CHUNK)
        of_weight = _added(partial + PADDED, programs_before, PADDED, CHUNK)
        if program == 0:
            tl.store(of_parameters + c, of_weight, mask=c < REAL)
            tl.store(of_parameters + REAL + c, of_bias, mask=c < REAL)
            if SLOPED:
                of_slope = _added(partial + 2 * PADDED, programs_before, PADDED, CHUNK)
                tl.store(of_parameters + 2 * REAL + c, of_slope, mask=c < REAL)
        mean = tl.load(statistics + c, mask=c < REAL, other=0.0)
        inverse = tl.load(statistics + REAL + c, mask=c < REAL, other=0.0)
        gamma, beta, under = parameters(weight, bias, slope, REAL, PADDED, SLOPED)
        scale = gamma * inverse
        level = of_bias / inside
        tilt = of_weight * inverse / inside
        for first in range(program * ROWS, rows, programs * ROWS):
            n, there, counted = tile_of(first, rows, mask, ROWS, MASKED)
            distance, _a, _g, reached = _reached(x, gradient, n, counted, mean, scale, beta, under, CHANNELS, PADDED)
            dx = scale[None, :] * (reached - level[None, :] - distance * tilt[None, :])
            if MASKED:
                dx = tl.where(counted[:, None], dx, 0.0)
            place = n[:, None] * CHANNELS + c[None, :]
            tl.store(out + place, dx.to(out.dtype.element_ty), mask=there[:, None] & (c < CHANNELS)[None, :])
