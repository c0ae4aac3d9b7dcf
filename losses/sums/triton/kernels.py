# mypy: disable-error-code="no-untyped-def"
"""The GPU kernels of the table of sums and of its gradient; there are none where Triton is missing.

Program (i, b) takes every so many-th tile of sample b, from tile i on: PADDED classes by BLOCK voxels, both powers of
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
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
        CROP: tl.constexpr,
    ):
        """Logits (PADDED, BLOCK), 0 beyond the volume and the classes; labels and weights (BLOCK,).

        Labels stay int64, in which every integer label is what it was: in int32 one of 2³² would be class 0.
        """
        sample = tl.program_id(1).to(tl.int64)
        c = tl.arange(0, PADDED)
        n = (first + tl.arange(0, BLOCK)).to(tl.int64)
        there = n < voxels
        if CROP:  # the rows of a crop lie apart, so that no one stride leads from voxel to voxel
            row = n // size_z
            of_voxel = (row // size_y) * stride_x + (row % size_y) * stride_y + (n % size_z) * stride_z
        else:
            of_voxel = n * stride_z
        where_z = sample * stride_b + c[:, None].to(tl.int64) * stride_c + of_voxel[None, :]
        z = tl.load(logits + where_z, mask=(c < CLASSES)[:, None] & there[None, :], other=0.0).to(tl.float32)
        y = tl.load(labels + sample * voxels + n, mask=there, other=0).to(tl.int64)
        if WEIGHTED:
            w = tl.load(weight + sample * voxels + n, mask=there, other=0.0).to(tl.float32)
        else:
            w = there.to(tl.float32)
        if IGNORING:  # the label may lie outside the classes; as class 0 of weight 0 it is no error and counts nowhere
            counted = y != ignore
            w = tl.where(counted, w, 0.0)
            y = tl.where(counted, y, 0)
        return z, y, w

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
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
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
            z, y, w = _load_tile(
                logits,
                labels,
                weight,
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
                CLASSES,
                PADDED,
                BLOCK,
                WEIGHTED,
                IGNORING,
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
                ce_sum += (log_total[None, :] - z) * r
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
        CLASSES: tl.constexpr,
        PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
        WEIGHTED: tl.constexpr,
        IGNORING: tl.constexpr,
        SQUARES: tl.constexpr,
        ENTROPY: tl.constexpr,
        CROP: tl.constexpr,
    ):
        """The gradient of the logits to ``grad``, from that of the sums, ``grad_sums`` (B, COLUMNS, CLASSES).

        The same chain through the softmax as `rarevox.losses.sums.pieces.write_gradient`; the softmax is made again
        from the logits, which takes less memory traffic than to store it in the forward pass and load it here.
        """
        program, programs = tl.program_id(0), tl.num_programs(0)
        sample = tl.program_id(1).to(tl.int64)
        c = tl.arange(0, PADDED)
        inside = c < CLASSES
        of = grad_sums + sample * COLUMNS * CLASSES + c
        g_p = tl.load(of + P * CLASSES, mask=inside, other=0.0)
        g_pr = tl.load(of + PR * CLASSES, mask=inside, other=0.0)
        g_pp = tl.load(of + PP * CLASSES, mask=inside, other=0.0)
        g_ppr = tl.load(of + PPR * CLASSES, mask=inside, other=0.0)
        g_ce = tl.load(of + CE * CLASSES, mask=inside, other=0.0)
        for first in range(program * BLOCK, voxels, programs * BLOCK):
            z, y, w = _load_tile(
                logits,
                labels,
                weight,
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
                CLASSES,
                PADDED,
                BLOCK,
                WEIGHTED,
                IGNORING,
                CROP,
            )
            p, _ = _softmax(z, CLASSES, PADDED)
            r = y[None, :] == c[:, None]
            d = g_p[:, None] + tl.where(r, g_pr[:, None], 0.0)
            if SQUARES:
                d += 2 * p * (g_pp[:, None] + tl.where(r, g_ppr[:, None], 0.0))
            s = tl.sum(p * d, 0)
            result = p * (d - s[None, :])
            if ENTROPY:
                pull = tl.sum(tl.where(r, g_ce[:, None], 0.0), 0)
                result += pull[None, :] * (p - tl.where(r, 1.0, 0.0))
            n = (first + tl.arange(0, BLOCK)).to(tl.int64)
            place = sample * grad_stride_b + c[:, None].to(tl.int64) * grad_stride_c + n[None, :] * grad_stride_n
            stored = (result * w[None, :]).to(grad.dtype.element_ty)
            tl.store(grad + place, stored, mask=inside[:, None] & (n < voxels)[None, :])
