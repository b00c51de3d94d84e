"""From operands to a plan: layouts, descriptors, configuration, partial results and their finish."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tiltyard_kernels.epilogue.codegen import Access, argument_layout, device_function
from tiltyard_kernels.epilogue.operator import result_dtype
from tiltyard_kernels.epilogue.program import Epilogue
from tiltyard_kernels.gemm import config as configs
from tiltyard_kernels.gemm import reductions
from tiltyard_kernels.gemm.config import Config, Skinny
from tiltyard_kernels.gemm.operands import Matrix, as_matrix, can_describe, gpu_of, multiprocessors
from tiltyard_kernels.gemm.packed import PackedWeight
from tiltyard_kernels.gemm.plan import Plan, Result, Step, View

DESCRIPTOR_SLOTS = 6

Pair = tuple[torch.Tensor, torch.Tensor]
ScalePair = tuple[torch.Tensor, torch.Tensor | None]


class PlanMaker:
    """Makes one plan. Dimension letters: a (M, K), b (K, N), p (M, rank), q (rank, N)."""

    def __init__(  # noqa: PLR0917  # as plan_key
        self,
        program: Epilogue,
        a: torch.Tensor,
        b: torch.Tensor | PackedWeight,
        low_rank: Pair | None,
        scales: ScalePair | None,
        operands: dict[str, torch.Tensor | float],
        into: dict[str, torch.Tensor],
        out_dtype: torch.dtype | None,
        *,
        on_hopper: bool,
    ) -> None:
        self.program = program
        self.a = a
        self.b = b
        self.low_rank = low_rank
        self.scales = scales
        self.operands = operands
        self.into = into
        self.on_hopper = on_hopper
        self.m, self.k = a.shape
        self.n = b.shape[1] if isinstance(b, torch.Tensor) else b.shape[0]
        self.rank = 0 if low_rank is None else low_rank[0].shape[1]
        # Read after the loop, beside whose buffers two blocks must fit where there are several.
        self.block_r = (
            min(64 if self.rank <= 64 else 32, max(16, 1 << (self.rank - 1).bit_length())) if self.rank else 16
        )
        self.wide = torch.float64 if a.dtype == torch.float64 else torch.float32
        self.tiles = [
            Result(name, (self.m, int(self.n * store.width)), store.dtype or result_dtype(a, out_dtype))
            for name, store in program.stores.items()
            if store.how == "tile"
        ]
        self.copied = [
            name
            for name, value in operands.items()
            if isinstance(value, torch.Tensor) and value.dim() and value.stride(-1) != 1
        ]
        self.scratch: list[Result] = []

    def plan(self, config: Config | Skinny | None) -> Plan:
        if isinstance(self.b, PackedWeight) or isinstance(config, Skinny):
            steps = self.skinny(config if isinstance(config, Skinny) else self.skinny_config())
        elif config is None and self.is_skinny():
            steps = self.skinny(self.skinny_config())
        else:
            steps = self.mainloop(self.chosen(config))
        is_empty = self.m == 0 or self.n == 0
        steps = [] if is_empty else steps + reductions.statistics(self.program, (self.m, self.n), self.scratch)
        return Plan(
            steps,
            self.tiles,
            self.scratch,
            reductions.finishes(self.program, is_empty=is_empty),
            list(self.program.stores),
            self.copied,
            self.a.device,
        )

    def is_skinny(self) -> bool:
        is_narrow = self.a.dtype in (torch.float16, torch.bfloat16)
        return 0 < self.m <= configs.SKINNY_ROWS_MAX and is_narrow and self.scales is None

    def skinny_config(self) -> Skinny:
        packed = self.b if isinstance(self.b, PackedWeight) else None
        if packed is not None and self.fits_single_row(packed) and self.k <= configs.SINGLE_ROW_COLUMNS_MAX:
            chosen = replace(configs.SINGLE_ROW, block_n=4 if self.n <= 4096 else 8)
            return replace(chosen, block_k=64) if gpu_of(self.a.device) is None else chosen
        bits = 16 if packed is None else (4 if packed.is_four_bit else 8)
        group = packed.group if packed is not None else 0
        programs = multiprocessors(self.a.device)
        return configs.choose_skinny(
            self.m, self.n, self.k, bits=bits, group=group, programs=programs, on_cpu=gpu_of(self.a.device) is None
        )

    def fits_single_row(self, packed: PackedWeight) -> bool:
        """Whether `device.single_row` reads this product: it takes x as aligned words of two columns."""
        is_words = self.a.element_size() == 2 and self.a.stride(1) == 1 and self.a.data_ptr() % 16 == 0
        return self.m == 1 and packed.format == "int4" and self.k % 32 == 0 and is_words

    def chosen(self, config: Config | None) -> Config:
        left, right = self.matrices()
        a = self.a
        gpu = gpu_of(a.device)
        if config is None:
            config = (
                configs.INTERPRETER
                if gpu is None
                else configs.choose(
                    self.m,
                    self.n,
                    self.k,
                    layout=("t" if left.is_transposed else "n") + ("t" if right.is_transposed else "n"),
                    itemsize=a.element_size(),
                    gpu=gpu[0],
                    capability=gpu[1],
                    programs=multiprocessors(a.device),
                )
            )
        loads_tiles = any(load.extent == "tile" for load in self.program.loads.values())
        fitted = config.fitted(
            self.program.granularity,
            float(self.program.widest),
            loads_tiles=loads_tiles,
            has_pair=self.rank > 0 and not self.is_joined(left, right),
        )
        if a.element_size() > 4:
            fitted = replace(fitted, block_k=16, split=1)
        # The parts' sums are joined with P · Q, which is not to be scaled.
        return fitted if self.scales is None else replace(fitted, split=1)

    def matrices(self) -> tuple[Matrix, Matrix]:
        assert isinstance(self.b, torch.Tensor)  # noqa: S101  # the mainloop has no quantised operands
        return as_matrix(self.a, described=self.on_hopper), as_matrix(self.b, described=self.on_hopper)

    def is_joined(self, left: Matrix, right: Matrix) -> bool:
        """Whether the adapter's blocks are read in the loop over K: P and Q lie as a and b do, and have descriptors."""
        if self.low_rank is None or self.scales is not None or self.k == 0 or left.is_transposed:
            return False
        if self.low_rank[0].dtype != self.a.dtype:
            return False
        p, q = (as_matrix(part, described=True) for part in self.low_rank)
        is_alike = not p.is_transposed and q.is_transposed == right.is_transposed
        is_described = left.is_described and right.is_described and p.is_described and q.is_described
        return is_alike and is_described and not (p.is_copied or q.is_copied)

    def mainloop(self, config: Config) -> list[Step]:
        from tiltyard_kernels.device.mainloop import gemm_kernel  # noqa: PLC0415  # only where Triton is there

        left, right = self.matrices()
        self.copied += ["@a"] * left.is_copied + ["@b"] * right.is_copied
        split = min(config.split, max(1, -(-self.k // config.block_k)))
        p = q = None
        if self.low_rank is not None and split == 1:
            p = as_matrix(self.low_rank[0], described=left.is_described)
            if p.is_transposed or p.is_copied:
                self.copied.append("@p")
                p = as_matrix(torch.empty_like(self.low_rank[0]).contiguous(), described=left.is_described)
            q = as_matrix(self.low_rank[1], described=left.is_described)
            self.copied += ["@q"] * q.is_copied
        bm, bn, bk = config.block_m, config.block_n, config.block_k
        is_joined = split == 1 and self.is_joined(left, right)
        block_r = bk if is_joined else self.block_r
        described = self.described(config) if split == 1 else {}
        access = Access(tuple(described))
        slots: list[tuple[int, str, View | int | None]] = [
            (0, "@a", left.view((bm, bk))),
            (1, "@b", right.view((bk, bn))),
        ]
        if p is not None and q is not None:
            slots += [(2, "@p", p.view((bm, block_r))), (3, "@q", q.view((block_r, bn)))]
        if self.scales is not None:
            slots.append((12, "@row_scale", None))
            if self.scales[1] is not None:
                slots.append((13, "@column_scale", None))
        slots += [(4 + index, name, view) for index, (name, view) in enumerate(described.items())]
        tile_count = -(-self.m // bm) * -(-self.n // bn) * split
        # The step from tile to tile is a constant of the kernel: it may not change with the rows of a call.
        programs = multiprocessors(self.a.device) * config.resident
        if split > 1:
            slots.append((10, "@workspace", None))
            self.scratch.append(Result("@workspace", (split, self.m, self.n), torch.float32))
        import triton.language as tl  # noqa: PLC0415

        template = [None] * 11 + [
            (),
            None,
            None,
            self.m,
            self.n,
            self.k,
            device_function(self.program, access),
            left.is_transposed,
            right.is_transposed,
            bool(q and q.is_transposed),
            left.is_described,
            right.is_described,
            bool(p and p.is_described),
            bool(q and q.is_described),
            self.rank,
            block_r,
            bm,
            bn,
            bk,
            config.group,
            config.subtiles,
            programs,
            self.m % bm == 0,
            self.n % bn == 0,
            self.k % bk == 0,
            self.k > 0,
            tl.float64 if self.wide == torch.float64 else tl.float32,
            self.precision(),
            config.flatten,
            split,
            is_joined,
            0 if self.scales is None else (1 if self.scales[1] is None else 2),
        ]
        packed = (11, self.arguments(access)) if split == 1 else None
        grid = (min(tile_count, programs),)
        step = Step(gemm_kernel, grid, template, slots, packed=packed, warps=config.warps, stages=config.stages)
        if split > 1:
            return [step, self.join(split, min(32, bm))]
        self.reserve_partials(bm, bn // config.subtiles, -(-self.n // bn) * config.subtiles)
        return [step]

    def skinny(self, config: Skinny) -> list[Step]:
        from tiltyard_kernels.device.skinny import skinny_kernel  # noqa: PLC0415  # only where Triton is there

        if config.block_m == 1 and isinstance(self.b, PackedWeight) and self.fits_single_row(self.b):
            return self.single_row(config, self.b)
        if self.a.stride(1) != 1:
            self.copied.append("@a")
        bn = max(config.block_n, self.program.granularity)
        split = min(config.split, max(1, -(-self.k // config.block_k)))
        is_four_bit = isinstance(self.b, PackedWeight) and self.b.is_four_bit
        is_fma = self.m == 1 and config.fma and not is_four_bit
        bm = 1 if is_fma else config.block_m
        slots: list[tuple[int, str, View | int | None]] = [(0, "@a", None)]
        groups, form = 1, "dense"
        is_transposed, w_stride = True, self.k
        kind, group, has_zero = "plain", 1, False
        if isinstance(self.b, PackedWeight):
            form, kind, group = self.b.format, self.b.kind, max(1, self.b.group)
            groups = max(1, self.k // group)
            has_zero = self.b.zero is not None
            places = {"values": 2, "scale": 4, "zero": 5}
            slots += [(places[name], f"@{name}", None) for name in self.b.tensors()]
            w_stride = self.k // 2 if is_four_bit else self.k
        else:
            right = as_matrix(self.b, described=False)
            self.copied += ["@b"] * right.is_copied
            is_transposed, w_stride = right.is_transposed, right.stride
            slots.append((2, "@b", None))
        template: list[Any] = [None] * 12
        template[1] = self.a.stride(0) if self.a.stride(1) == 1 else self.k
        template[3] = w_stride
        template[8:10] = self.q_strides()
        if self.low_rank is not None:
            slots += self.low_rank_slots(6)
        if split > 1:
            slots.append((10, "@workspace", None))
            self.scratch.append(Result("@workspace", (split, self.m, self.n), torch.float32))
        access = Access()
        template[11] = ()
        template += [self.m, self.n, self.k, groups, device_function(self.program, access)]
        template += [form, kind, group, has_zero, is_transposed, self.rank, self.block_r, bm, bn, config.block_k]
        even = [self.n % bn == 0, self.k % config.block_k == 0]
        on_gpu = gpu_of(self.a.device) is not None
        is_paired = on_gpu and self.a.element_size() == 2 and template[1] % 2 == 0 and self.a.data_ptr() % 16 == 0
        template += [split, is_fma, *even, self.precision(), on_gpu, is_paired]
        grid = (-(-self.n // bn), split, -(-self.m // bm))
        packed = (11, self.arguments(access)) if split == 1 else None
        step = Step(skinny_kernel, grid, template, slots, packed=packed, warps=config.warps, stages=config.stages)
        if split > 1:
            return [step, self.join(split, bm if bm == 1 else max(16, bm))]
        self.reserve_partials(bm, bn, -(-self.n // bn))
        return [step]

    def single_row(self, config: Skinny, packed: PackedWeight) -> list[Step]:
        from tiltyard_kernels.device.single_row import single_row_kernel  # noqa: PLC0415  # only where Triton is there

        bn, bk = max(config.block_n, self.program.granularity), config.block_k
        slots: list[tuple[int, str, View | int | None]] = [(0, "@a", None), (1, "@values", None), (3, "@scale", None)]
        if packed.zero is not None:
            slots.append((4, "@zero", None))
        if self.low_rank is not None:
            slots += self.low_rank_slots(5)
        template: list[Any] = [None, None, self.k // 8, None, None, None, None, *self.q_strides(), ()]
        template += [self.n, self.k, self.k // packed.group, device_function(self.program, Access())]
        template += [packed.group, packed.zero is not None, self.rank, self.block_r, bn, bk]
        template += [self.n % bn == 0, self.k % bk == 0, gpu_of(self.a.device) is not None]
        self.reserve_partials(1, bn, -(-self.n // bn))
        grid, arguments = (-(-self.n // bn),), (9, self.arguments(Access()))
        made = Step(
            single_row_kernel, grid, template, slots, packed=arguments, warps=config.warps, stages=config.stages
        )
        return [made]

    def join(self, split: int, block_m: int) -> Step:
        from tiltyard_kernels.device.skinny import join_kernel  # noqa: PLC0415  # only where Triton is there

        bn = max(64, self.program.granularity)
        access = Access()
        template: list[Any] = [None, None, None, *self.q_strides(), (), self.m, self.n]
        template += [device_function(self.program, access), self.rank, self.block_r, block_m, bn, split]
        template += [self.m % block_m == 0, self.n % bn == 0, self.precision()]
        slots: list[tuple[int, str, View | int | None]] = [(0, "@workspace", None)]
        if self.low_rank is not None:
            slots += self.low_rank_slots(1)
        self.reserve_partials(block_m, bn, -(-self.n // bn))
        grid = (-(-self.n // bn), -(-self.m // block_m))
        return Step(join_kernel, grid, template, slots, packed=(5, self.arguments(access)), warps=4, stages=2)

    def low_rank_slots(self, first: int) -> list[tuple[int, str, View | int | None]]:
        assert self.low_rank is not None  # noqa: S101  # asked by the callers
        if not self.low_rank[0].is_contiguous() and "@p" not in self.copied:
            self.copied.append("@p")
        return [(first, "@p", None), (first + 1, "@q", None)]

    def q_strides(self) -> list[int]:
        return [0, 0] if self.low_rank is None else list(self.low_rank[1].stride())

    def precision(self) -> str | None:
        return "ieee" if self.a.dtype == torch.float32 else None

    def described(self, config: Config) -> dict[str, View]:
        """The matrices beside the product that the epilogue reaches through descriptors, in order of their slots."""
        found: dict[str, View] = {}
        for name, (shape, strides, itemsize, is_aligned) in self.epilogue_matrices().items():
            declared = self.program.loads.get(name) or self.program.stores[name]
            columns = int(config.block_n // config.subtiles * declared.width)
            # A sub-tile narrower than 16 bytes cannot be copied by TMA.
            if self.on_hopper and is_aligned and columns * itemsize >= 16 and len(found) < DESCRIPTOR_SLOTS:
                found[name] = View(list(shape), list(strides), [config.block_m, columns])
        return found

    def epilogue_matrices(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], int, bool]]:
        """Shape, strides, bytes an element, and whether a descriptor fits, of each matrix beside the product."""
        found: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, bool]] = {}
        for name, load in self.program.loads.items():
            value = self.operands[name]
            if load.extent == "tile" and not load.period and isinstance(value, torch.Tensor):
                if name in self.copied:
                    value = torch.empty(value.shape, dtype=value.dtype, device=value.device)
                found[name] = (tuple(value.shape), value.stride(), value.element_size(), can_describe(value))
        for result in self.tiles:
            tensor = self.into.get(result.name)
            if tensor is not None:
                found[result.name] = (tuple(tensor.shape), tensor.stride(), tensor.element_size(), can_describe(tensor))
            else:
                row_bytes = result.shape[1] * result.dtype.itemsize
                is_aligned = row_bytes % 16 == 0 and row_bytes > 0 and result.shape[0] > 0
                found[result.name] = (result.shape, (result.shape[1], 1), result.dtype.itemsize, is_aligned)
        return found

    def arguments(self, access: Access) -> list[str | int]:
        """The epilogue's tuple: the names of tensors and numbers, and strides."""
        matrices = self.epilogue_matrices()
        made: list[str | int] = []
        for name, part in argument_layout(self.program, access):
            if part == "stride":
                made.append(matrices[name][1][0] if name in matrices else self.stride_of(name))
            else:
                made.append(f"{name}@{part}" if part in ("partial", "second") else name)
        return made

    def stride_of(self, name: str) -> int:
        value = self.operands[name]
        assert isinstance(value, torch.Tensor)  # noqa: S101  # only matrices have a stride
        return value.shape[1] if name in self.copied else value.stride(0)

    def reserve_partials(self, block_m: int, step: int, pieces: int) -> None:
        """Room for one partial result a sub-tile of (block_m, step), of which a row has `pieces`."""
        self.scratch += reductions.partials(self.program, (self.m, self.n), self.wide, (block_m, step, pieces))
