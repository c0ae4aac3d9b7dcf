# mypy: disable-error-code="no-untyped-def"
"""The kernel of an affine map with an activation and a sum; there is none where Triton is missing."""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

if triton is not None:

    @triton.jit
    def affine_act_kernel(
        x,
        scale,
        shift,
        slope,
        mask,
        add,
        out,
        rows,
        add_stride_b,
        add_stride_x,
        add_stride_y,
        add_stride_z,
        size_x,
        size_y,
        size_z,
        planes_before,
        CHANNELS: tl.constexpr,
        REAL: tl.constexpr,
        PADDED: tl.constexpr,
        ROWS: tl.constexpr,
        SCALED: tl.constexpr,
        MASKED: tl.constexpr,
        ADDED: tl.constexpr,
        FACTOR: tl.constexpr,
        BEFORE: tl.constexpr,
    ):
        """Program i maps the rows (voxels) of tile i, channels innermost; places are int64, as volumes may be large.

        Numbers are float32 in between, whatever the type of ``x`` and ``out``, which may be one tensor: a row is read
        whole before it is written. The channels beyond the first REAL are zero, and stay so.
        """
        c = tl.arange(0, PADDED)
        n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        real, there = c < REAL, n < rows
        inside = there[:, None] & (c < CHANNELS)[None, :]
        place = n[:, None] * CHANNELS + c[None, :]
        z = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        if SCALED:
            z = z * tl.load(scale + c, mask=real, other=0.0)[None, :]
        z = z + tl.load(shift + c, mask=real, other=0.0)[None, :]
        if (
            ADDED > 0
        ):  # a crop, whose rows lie apart, or a volume each of whose voxels stands for FACTOR along each axis
            voxel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
            line = voxel // size_z
            plane = line // size_y
            from_there = (plane // size_x).to(tl.int64) * add_stride_b
            from_there += (plane % size_x + planes_before) // FACTOR * add_stride_x
            from_there += (line % size_y) // FACTOR * add_stride_y + (voxel % size_z) // FACTOR * add_stride_z
            more = there[:, None] & (c < ADDED)[None, :]
            added = tl.load(add + from_there[:, None] + c[None, :], mask=more, other=0.0).to(tl.float32)
            if BEFORE:
                z += added
        # Not a product with 0 below: an infinite value under ReLU is 0 there and not NaN. NaN itself stays NaN.
        under = tl.load(slope + c, mask=real, other=0.0)[None, :]
        z = tl.where(z <= 0, tl.where(under == 0, 0.0, z * under), z)
        if ADDED > 0 and not BEFORE:
            z += added
        if MASKED:
            z = tl.where(tl.load(mask + n, mask=there, other=0.0).to(tl.float32)[:, None] > 0, z, 0.0)
        tl.store(out + place, z.to(out.dtype.element_ty), mask=inside)
