# mypy: disable-error-code="no-untyped-def"
"""The kernels of batch norm with its activation in training; there are none where Triton is missing.

Volumes are (voxels, CHANNELS) with the channels innermost. A kernel's programs share the voxels out in tiles of ROWS:
program i takes every so many-th tile, from tile i on. Numbers are float32 in between. PADDED is CHANNELS made a power
of two, as tiles are; of the CHANNELS the first REAL have weights, and the others are zero and stay so. Where there is a
mask, the voxels where it is 0 count nowhere, and results are 0 there, whatever was read.

What programs found one by one, (programs, …, PADDED) in ``partial``, is put together by each program of the kernel that
follows: that reads a few kB more from the cache, and saves a launch. No program adds to what others add to, so that
results do not change from run to run.
"""

from __future__ import annotations

from rarevox.networks.cuda.kernels import triton

if triton is not None:
    import triton.language as tl

    @triton.jit
    def tile_of(first, rows, mask, ROWS: tl.constexpr, MASKED: tl.constexpr):
        """The voxels of the tile from ``first`` on, which of them are there, and which count; places are int64."""
        n = (first + tl.arange(0, ROWS)).to(tl.int64)
        there = n < rows
        counted = there
        if MASKED:
            counted = there & (tl.load(mask + n, mask=there, other=0.0).to(tl.float32) > 0)
        return n, there, counted

    @triton.jit
    def parameters(weight, bias, slope, REAL: tl.constexpr, PADDED: tl.constexpr, SLOPED: tl.constexpr):
        """γ, β and the slope below zero, (PADDED,): zeros beyond the real channels, so that these give 0."""
        c = tl.arange(0, PADDED)
        gamma = tl.load(weight + c, mask=c < REAL, other=0.0)
        beta = tl.load(bias + c, mask=c < REAL, other=0.0)
        under = tl.zeros([PADDED], tl.float32)
        if SLOPED:
            under = tl.load(slope + c, mask=c < REAL, other=0.0)
        return gamma, beta, under

    @triton.jit
    def below(value, under):
        """``value`` times the slope; 0 for a slope of 0, where an infinite value would be NaN."""
        return tl.where(under == 0, 0.0, value * under)

    @triton.jit
    def moments_kernel(
        x,
        mask,
        partial,
        counts,
        rows,
        CHANNELS: tl.constexpr,
        PADDED: tl.constexpr,
        ROWS: tl.constexpr,
        MASKED: tl.constexpr,
    ):
        """Mean and Σ (x − mean)² of a program's voxels to ``partial`` (programs, 2, PADDED), how many to ``counts``.

        Sums of the distance to the mean of the program's first tile: the square of a mean far from zero would swallow
        the variance, and a value by itself may lie far from the mean.
        """
        program, programs = tl.program_id(0), tl.num_programs(0)
        c = tl.arange(0, PADDED)
        real = c < CHANNELS
        n, _there, counted = tile_of(program * ROWS, rows, mask, ROWS, MASKED)
        inside = counted[:, None] & real[None, :]
        values = tl.load(x + n[:, None] * CHANNELS + c[None, :], mask=inside, other=0.0).to(tl.float32)
        found = tl.sum(counted.to(tl.int32), 0)
        # The first voxel always lies inside; a first tile may lie outside as a whole.
        one = tl.load(x + c, mask=real, other=0.0).to(tl.float32)
        pivot = tl.where(found > 0, tl.sum(values, 0) / tl.maximum(found, 1).to(tl.float32), one)
        count = tl.zeros([ROWS], tl.int32)
        first_sum = tl.zeros([ROWS, PADDED], tl.float32)
        second_sum = tl.zeros([ROWS, PADDED], tl.float32)
        for first in range(program * ROWS, rows, programs * ROWS):
            n, _there, counted = tile_of(first, rows, mask, ROWS, MASKED)
            inside = counted[:, None] & real[None, :]
            z = tl.load(x + n[:, None] * CHANNELS + c[None, :], mask=inside, other=0.0).to(tl.float32)
            distance = tl.where(inside, z - pivot[None, :], 0.0)
            count += counted.to(tl.int32)
            first_sum += distance
            second_sum += distance * distance
        number = tl.sum(count, 0)
        share = tl.sum(first_sum, 0) / tl.maximum(number, 1).to(tl.float32)
        squares = tl.sum(second_sum, 0) - share * share * number.to(tl.float32)
        out = partial + program * 2 * PADDED + c
        tl.store(out, pivot + share)
        tl.store(out + PADDED, tl.where(squares < 0, 0.0, squares))  # of NaN it stays NaN
        tl.store(counts + program, number)

    @triton.jit
    def _together(partial, counts, programs, PADDED: tl.constexpr, CHUNK: tl.constexpr):
        """Number, mean and biased variance of all voxels from those of each program, some at a time.

        With nᵢ, mᵢ and sᵢ of the programs: mean = m₀ + Σ nᵢ (mᵢ − m₀) / N, variance = Σ (sᵢ + nᵢ (mᵢ − mean)²) / N.
        """
        c = tl.arange(0, PADDED)
        some = tl.arange(0, CHUNK)
        origin = tl.load(partial + c)
        number = tl.zeros([CHUNK], tl.float32)
        distance = tl.zeros([CHUNK, PADDED], tl.float32)
        for start in range(0, programs, CHUNK):
            i = start + some
            n = tl.load(counts + i, mask=i < programs, other=0).to(tl.float32)
            mean = tl.load(partial + i[:, None] * 2 * PADDED + c[None, :], mask=(i < programs)[:, None], other=0.0)
            number += n
            distance += tl.where(n[:, None] > 0, n[:, None] * (mean - origin[None, :]), 0.0)
        total = tl.sum(number, 0)
        centre = origin + tl.sum(distance, 0) / total
        squares = tl.zeros([CHUNK, PADDED], tl.float32)
        for start in range(0, programs, CHUNK):
            i = start + some
            n = tl.load(counts + i, mask=i < programs, other=0).to(tl.float32)
            place = partial + i[:, None] * 2 * PADDED + c[None, :]
            mean = tl.load(place, mask=(i < programs)[:, None], other=0.0)
            inner = tl.load(place + PADDED, mask=(i < programs)[:, None], other=0.0)
            away = mean - centre[None, :]
            squares += tl.where(n[:, None] > 0, inner + n[:, None] * away * away, 0.0)
        return total, centre, tl.sum(squares, 0) / total

    @triton.jit
    def norm_act_kernel(
        x,
        mask,
        add,
        weight,
        bias,
        slope,
        partial,
        counts,
        running_mean,
        running_var,
        batches,
        statistics,
        out,
        rows,
        programs_before,
        momentum,
        epsilon,
        add_stride_b,
        add_stride_x,
        add_stride_y,
        add_stride_z,
        size_x,
        size_y,
        size_z,
        CHANNELS: tl.constexpr,
        REAL: tl.constexpr,
        PADDED: tl.constexpr,
        ROWS: tl.constexpr,
        CHUNK: tl.constexpr,
        ADDED: tl.constexpr,
        MASKED: tl.constexpr,
        SLOPED: tl.constexpr,
        RUNNING: tl.constexpr,
    ):
        """act(γ (x − mean) / √(var + ε) + β), plus ``add`` in the first ADDED channels, to ``out``.

        The first program leaves mean and 1 / √(var + ε) in ``statistics`` (2, REAL), and moves the running ones.
        """
        program, programs = tl.program_id(0), tl.num_programs(0)
        c = tl.arange(0, PADDED)
        real = c < CHANNELS
        total, mean, variance = _together(partial, counts, programs_before, PADDED, CHUNK)
        inverse = tl.where(c < REAL, 1.0 / tl.sqrt_rn(variance + epsilon), 0.0)
        gamma, beta, under = parameters(weight, bias, slope, REAL, PADDED, SLOPED)
        if program == 0:
            kept = c < REAL
            tl.store(statistics + c, mean, mask=kept)
            tl.store(statistics + REAL + c, inverse, mask=kept)
            if RUNNING:
                unbiased = variance * (total / tl.maximum(total - 1, 1.0))
                before = tl.load(running_mean + c, mask=kept, other=0.0)
                tl.store(running_mean + c, before + momentum * (mean - before), mask=kept)
                before = tl.load(running_var + c, mask=kept, other=0.0)
                tl.store(running_var + c, before + momentum * (unbiased - before), mask=kept)
                tl.store(batches, tl.load(batches) + 1)
        scale = gamma * inverse
        for first in range(program * ROWS, rows, programs * ROWS):
            n, there, counted = tile_of(first, rows, mask, ROWS, MASKED)
            place = n[:, None] * CHANNELS + c[None, :]
            z = tl.load(x + place, mask=counted[:, None] & real[None, :], other=0.0).to(tl.float32)
            a = (z - mean[None, :]) * scale[None, :] + beta[None, :]
            y = tl.where(a <= 0, below(a, under[None, :]), a)  # NaN stays NaN
            if ADDED > 0:  # a crop, whose rows lie apart
                voxel = first + tl.arange(0, ROWS)
                line = voxel // size_z
                plane = line // size_y
                from_there = (plane // size_x).to(tl.int64) * add_stride_b + (plane % size_x) * add_stride_x
                from_there += (line % size_y) * add_stride_y + (voxel % size_z) * add_stride_z
                more = there[:, None] & (c < ADDED)[None, :]
                y += tl.load(add + from_there[:, None] + c[None, :], mask=more, other=0.0).to(tl.float32)
            if MASKED:
                y = tl.where(counted[:, None], y, 0.0)
            tl.store(out + place, y.to(out.dtype.element_ty), mask=there[:, None] & real[None, :])
