# mypy: disable-error-code="no-untyped-def"
"""The GPU kernels of the table of sums and of its gradient; there are none where Triton is missing.

Program (i, q) takes every so many-th tile of problem q, from tile i on: PADDED classes by BLOCK voxels, both powers of
two, as Triton's tiles are. All classes of a voxel lie in one tile, so softmax and sums over the classes need no other.
Places are int64: a volume of logits may hold more elements than int32 counts.
"""

from __future__ import annotations

from rarevox.losses.sums import checks, table

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

# What the sums kernel sees beside the sums, the first of `Extremes`.
SEEN = checks.LABEL_HIGH + 1

if triton is not None:
    # Kernels read numbers of their module as constants only where these are declared so.
    COLUMNS = tl.constexpr(table.KERNEL_COLUMNS)
    VOXELS, P, R, PR = (tl.constexpr(place) for place in (table.VOXELS, table.P, table.R, table.PR))
    PP, PPR, CE = (tl.constexpr(place) for place in (table.PP, table.PPR, table.CE))
    SEEN_PLACES = tl.constexpr(SEEN)
    LARGEST_LABEL = tl.constexpr(2**63 - 1)
    LOGIT_SUM, LABEL_LOW, LABEL_HIGH = (
        tl.constexpr(place) for place in (checks.LOGIT_SUM, checks.LABEL_LOW, checks.LABEL_HIGH)
    )

    @triton.jit
    def _load_tile(
        logits,
        labels,
        weight,
        entropy_weight,
        first,
        voxels,
        stride_b,
        stride_c,
        stride_x,
        stride_y,
        stride_z,
        size_y,
        size_z,
        ignore,
        GROUPS: tl.constexpr,
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        ENTROPY_WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
        SIGMOID: tl.constexpr,
        CROP: tl.constexpr,
    ):
        """Logits (PADDED, BLOCK), 0 beyond the volume and the classes; labels, weights and the weights of the
        cross-entropy (BLOCK,).

        A problem is a sample, or with SIGMOID a channel of a sample, whose two rows are 0 and the logit:
        softmax([0, z]) = [1 − sigmoid(z), sigmoid(z)]. Labels stay int64, in which every integer label is what it was:
        in int32 one of 2³² would be class 0.
        """
        problem = tl.program_id(1).to(tl.int64)
        sample = problem // GROUPS
        c = tl.arange(0, PADDED)
        n = (first + tl.arange(0, BLOCK)).to(tl.int64)
        there = n < voxels
        if CROP:  # the rows of a crop lie apart, so that no one stride leads from voxel to voxel
            row = n // size_z
            of_voxel = (row // size_y) * stride_x + (row % size_y) * stride_y + (n % size_z) * stride_z
        else:
            of_voxel = n * stride_z
        if SIGMOID:  # row 0 is no logit, row 1 that of the problem's channel
            channel, real = problem % GROUPS + 0 * c[:, None].to(tl.int64), (c == 1)[:, None]
        else:
            channel, real = c[:, None].to(tl.int64), (c < CLASSES)[:, None]
        where_z = sample * stride_b + channel * stride_c + of_voxel[None, :]
        z = tl.load(logits + where_z, mask=real & there[None, :], other=0.0).to(tl.float32)
        y = tl.load(labels + problem * voxels + n, mask=there, other=0).to(tl.int64)
        if WEIGHTED:
            w = tl.load(weight + sample * voxels + n, mask=there, other=0.0).to(tl.float32)
        else:
            w = there.to(tl.float32)
        if ENTROPY_WEIGHTED:
            v = tl.load(entropy_weight + problem * voxels + n, mask=there, other=0.0).to(tl.float32)
        else:
            v = w
        if IGNORING:  # the label may lie outside the classes; as class 0 of weight 0 it is no error and counts nowhere
            counted = y != ignore
            w = tl.where(counted, w, 0.0)
            v = tl.where(counted, v, 0.0)
            y = tl.where(counted, y, 0)
        return z, y, w, v

    @triton.jit
    def _softmax(z, CLASSES: tl.constexpr, PADDED: tl.constexpr):
        """Softmax over the classes, 0 in the padding, and the log of its denominator."""
        inside = (tl.arange(0, PADDED) < CLASSES)[:, None]
        # The padding takes part in neither maximum nor sum: its logits were loaded as 0, which could be the largest.
        shift = tl.max(tl.where(inside, z, float("-inf")), 0)
        exponential = tl.where(inside, tl.exp(z - shift[None, :]), 0.0)
        total = tl.sum(exponential, 0)
        return exponential / total[None, :], tl.log(total) + shift

    @triton.jit
    def sums_kernel(
        logits,
        labels,
        weight,
        entropy_weight,
        partial,
        seen,
        voxels,
        stride_b,
        stride_c,
        stride_x,
        stride_y,
        stride_z,
        size_y,
        size_z,
        ignore,
        GROUPS: tl.constexpr,
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        ENTROPY_WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
        SIGMOID: tl.constexpr,
        SQUARES: tl.constexpr,
        ENTROPY: tl.constexpr,
        CROP: tl.constexpr,
    ):
        """The sums of one program, (COLUMNS, PADDED) to ``partial``, and what it saw, to ``seen``: the caller adds the
        programs up in float64, and needs no atomic additions, whose order would change from run to run.
        """
        program, programs = tl.program_id(0), tl.num_programs(0)
        c = tl.arange(0, PADDED)
        # Every element of the tile keeps sums of its own, reduced once at the end: reductions across threads for each
        # tile took more instructions than all the rest.
        voxel_count = tl.zeros([BLOCK], tl.float32)
        # Beyond the volume labels are read as 0, which is seen only where it is in the volume too.
        label_low = tl.full([BLOCK], LARGEST_LABEL, tl.int64)
        label_high = tl.full([BLOCK], -LARGEST_LABEL, tl.int64)
        logit_sum = tl.zeros([PADDED, BLOCK], tl.float32)
        p_sum = tl.zeros([PADDED, BLOCK], tl.float32)
        r_sum = tl.zeros([PADDED, BLOCK], tl.float32)
        pr_sum = tl.zeros([PADDED, BLOCK], tl.float32)
        pp_sum = tl.zeros([PADDED, BLOCK], tl.float32)
        ppr_sum = tl.zeros([PADDED, BLOCK], tl.float32)
        ce_sum = tl.zeros([PADDED, BLOCK], tl.float32)
        for first in range(program * BLOCK, voxels, programs * BLOCK):
            z, y, w, v = _load_tile(
                logits,
                labels,
                weight,
                entropy_weight,
                first,
                voxels,
                stride_b,
                stride_c,
                stride_x,
                stride_y,
                stride_z,
                size_y,
                size_z,
                ignore,
                GROUPS,
                CLASSES,
                PADDED,
                BLOCK,
                WEIGHTED,
                ENTROPY_WEIGHTED,
                IGNORING,
                SIGMOID,
                CROP,
            )
            p, log_total = _softmax(z, CLASSES, PADDED)
            r = tl.where(y[None, :] == c[:, None], w[None, :], 0.0)
            pw = p * w[None, :]
            pr = p * r
            voxel_count += w
            there = first + tl.arange(0, BLOCK) < voxels
            label_low = tl.minimum(label_low, tl.where(there, y, LARGEST_LABEL))
            label_high = tl.maximum(label_high, tl.where(there, y, -LARGEST_LABEL))
            logit_sum += z
            p_sum += pw
            r_sum += r
            pr_sum += pr
            if SQUARES:
                pp_sum += pw * p
                ppr_sum += pr * p
            if ENTROPY:
                share = tl.where(y[None, :] == c[:, None], v[None, :], 0.0) if ENTROPY_WEIGHTED else r
                ce_sum += (log_total[None, :] - z) * share
        row = tl.program_id(1) * programs + program
        out = partial + row * COLUMNS * PADDED + c
        tl.store(out + VOXELS * PADDED, tl.zeros([PADDED], tl.float32) + tl.sum(voxel_count, 0))
        tl.store(out + P * PADDED, tl.sum(p_sum, 1))
        tl.store(out + R * PADDED, tl.sum(r_sum, 1))
        tl.store(out + PR * PADDED, tl.sum(pr_sum, 1))
        tl.store(out + PP * PADDED, tl.sum(pp_sum, 1))
        tl.store(out + PPR * PADDED, tl.sum(ppr_sum, 1))
        tl.store(out + CE * PADDED, tl.sum(ce_sum, 1))
        of_seen = seen + row * SEEN_PLACES
        tl.store(of_seen + LOGIT_SUM, tl.sum(tl.sum(logit_sum, 1), 0))
        tl.store(of_seen + LABEL_LOW, tl.min(label_low, 0).to(tl.float32))
        tl.store(of_seen + LABEL_HIGH, tl.max(label_high, 0).to(tl.float32))

    @triton.jit
    def gradient_kernel(
        logits,
        labels,
        weight,
        entropy_weight,
        grad_sums,
        grad,
        voxels,
        stride_b,
        stride_c,
        stride_x,
        stride_y,
        stride_z,
        size_y,
        size_z,
        grad_stride_b,
        grad_stride_c,
        grad_stride_n,
        ignore,
        GROUPS: tl.constexpr,
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        ENTROPY_WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
        SIGMOID: tl.constexpr,
        SQUARES: tl.constexpr,
        ENTROPY: tl.constexpr,
        CROP: tl.constexpr,
    ):
        """The gradient of the logits to ``grad``, from that of the sums, ``grad_sums`` (B, COLUMNS, CLASSES).

        The same chain through the softmax as `rarevox.losses.sums.pieces.write_gradient`; the softmax is made again
        from the logits, which takes less memory traffic than to store it in the forward pass and load it here.
        """
        program, programs = tl.program_id(0), tl.num_programs(0)
        problem = tl.program_id(1).to(tl.int64)
        c = tl.arange(0, PADDED)
        inside = c < CLASSES
        of = grad_sums + problem * COLUMNS * CLASSES + c
        g_p = tl.load(of + P * CLASSES, mask=inside, other=0.0)
        g_pr = tl.load(of + PR * CLASSES, mask=inside, other=0.0)
        g_pp = tl.load(of + PP * CLASSES, mask=inside, other=0.0)
        g_ppr = tl.load(of + PPR * CLASSES, mask=inside, other=0.0)
        g_ce = tl.load(of + CE * CLASSES, mask=inside, other=0.0)
        for first in range(program * BLOCK, voxels, programs * BLOCK):
            z, y, w, v = _load_tile(
                logits,
                labels,
                weight,
                entropy_weight,
                first,
                voxels,
                stride_b,
                stride_c,
                stride_x,
                stride_y,
                stride_z,
                size_y,
                size_z,
                ignore,
                GROUPS,
                CLASSES,
                PADDED,
                BLOCK,
                WEIGHTED,
                ENTROPY_WEIGHTED,
                IGNORING,
                SIGMOID,
                CROP,
            )
            p, _ = _softmax(z, CLASSES, PADDED)
            r = y[None, :] == c[:, None]
            d = g_p[:, None] + tl.where(r, g_pr[:, None], 0.0)
            if SQUARES:
                d += 2 * p * (g_pp[:, None] + tl.where(r, g_ppr[:, None], 0.0))
            s = tl.sum(p * d, 0)
            result = p * (d - s[None, :]) * w[None, :]
            if ENTROPY:
                pull = tl.sum(tl.where(r, g_ce[:, None], 0.0), 0) * v
                result += pull[None, :] * (p - tl.where(r, 1.0, 0.0))
            n = (first + tl.arange(0, BLOCK)).to(tl.int64)
            if SIGMOID:
                channel, real = problem % GROUPS + 0 * c[:, None].to(tl.int64), (c == 1)[:, None]
            else:
                channel, real = c[:, None].to(tl.int64), inside[:, None]
            place = (problem // GROUPS) * grad_stride_b + channel * grad_stride_c + n[None, :] * grad_stride_n
            tl.store(grad + place, result.to(grad.dtype.element_ty), mask=real & (n < voxels)[None, :])
