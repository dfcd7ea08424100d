"""PyTorch at the work of bench/gpu.mjs: the layers of Stable Diffusion 1.5 with plain torch.nn and weights that are drawn.

    python3 torch_baseline.py --out results.json [--seconds 150] [--small]

Medians of CUDA events in milliseconds; what is done is in the file when the time is up. Eager fp16 as it comes, with
channels last, replayed as a CUDA graph, and compiled if the time allows.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

options = argparse.ArgumentParser()
options.add_argument('--out', required=True)
options.add_argument('--seconds', type=float, default=150)
options.add_argument('--small', action='store_true')
options = options.parse_args()

END = time.monotonic() + options.seconds
CUDA = torch.cuda.is_available()
DEVICE = 'cuda' if CUDA else 'cpu'
HALF = torch.float16 if CUDA else torch.float32
results = {
    'torch': torch.__version__,
    'device': torch.cuda.get_device_name() if CUDA else 'cpu',
    'small': options.small,
    'networks': {},
    'shapes': [],
    'training': [],
    'left_out': {},
}


def save():
    with open(options.out, 'w') as file:
        json.dump(results, file, indent=1)


def left():
    return END - time.monotonic()


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs, temb=None, eps=1e-5):
        super().__init__()
        groups = min(32, inputs)
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(temb, outputs) if temb else None
        self.norm2 = nn.GroupNorm(min(32, outputs), outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, temb=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if temb is not None:
            h = h + self.time(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.shortcut(x) if self.shortcut else x)


class Attention(nn.Module):
    def __init__(self, dim, heads, context=None, bias=False):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=bias)
        self.k = nn.Linear(context or dim, dim, bias=bias)
        self.v = nn.Linear(context or dim, dim, bias=bias)
        self.out = nn.Linear(dim, dim)

    def forward(self, x, context=None, causal=False):
        context = x if context is None else context
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(context)), split(self.v(context)), is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    def __init__(self, dim, heads, context):
        super().__init__()
        self.norm = nn.GroupNorm(min(32, dim), dim, 1e-6)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.attn1 = Attention(dim, heads)
        self.attn2 = Attention(dim, heads, context)
        self.ff1 = nn.Linear(dim, 8 * dim)
        self.ff2 = nn.Linear(4 * dim, dim)
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x, context):
        b, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).reshape(b, h * w, c)
        y = y + self.attn1(self.norm1(y))
        y = y + self.attn2(self.norm2(y), context)
        value, gate = self.ff1(self.norm3(y)).chunk(2, -1)
        y = y + self.ff2(value * F.gelu(gate))
        return x + self.proj_out(y.reshape(b, h, w, c).permute(0, 3, 1, 2))


class UNet(nn.Module):
    def __init__(self, channels=(320, 640, 1280, 1280), context=768, heads=8, latent=4):
        super().__init__()
        self.base = channels[0]
        temb = 4 * self.base
        self.recompute = False
        self.time = nn.Sequential(nn.Linear(self.base, temb), nn.SiLU(), nn.Linear(temb, temb))
        self.conv_in = nn.Conv2d(latent, self.base, 3, padding=1)
        last = len(channels) - 1
        self.down, skips, size = nn.ModuleList(), [self.base], self.base
        for i, out in enumerate(channels):
            for _ in range(2):
                attn = Transformer(out, heads, context) if i < last else None
                self.down.append(nn.ModuleList([ResBlock(size, out, temb), *([attn] if attn else [])]))
                size = out
                skips.append(size)
            if i < last:
                self.down.append(nn.ModuleList([nn.Conv2d(size, size, 3, stride=2, padding=1)]))
                skips.append(size)
        self.mid = nn.ModuleList([ResBlock(size, size, temb), Transformer(size, heads, context), ResBlock(size, size, temb)])
        self.up = nn.ModuleList()
        for i, out in reversed(list(enumerate(channels))):
            for j in range(3):
                layers = [ResBlock(size + skips.pop(), out, temb)]
                size = out
                if i < last:
                    layers.append(Transformer(out, heads, context))
                if j == 2 and i > 0:
                    layers.append(nn.Conv2d(size, size, 3, padding=1))
                self.up.append(nn.ModuleList(layers))
        self.norm_out = nn.GroupNorm(min(32, size), size)
        self.conv_out = nn.Conv2d(size, latent, 3, padding=1)

    def run(self, layer, *given):
        if self.recompute and self.training:
            return checkpoint(layer, *given, use_reentrant=False)
        return layer(*given)

    def block(self, layers, x, temb, context):
        for layer in layers:
            if isinstance(layer, ResBlock):
                x = self.run(layer, x, temb)
            elif isinstance(layer, Transformer):
                x = self.run(layer, x, context)
            else:
                x = layer(x if layer.stride == (2, 2) else F.interpolate(x, scale_factor=2.0, mode='nearest'))
        return x

    def forward(self, x, timestep, context):
        half = self.base // 2
        waves = torch.exp(-math.log(10000) / half * torch.arange(half, device=x.device)) * timestep[:, None].float()
        temb = self.time(torch.cat([waves.cos(), waves.sin()], -1).to(context.dtype))
        x = self.conv_in(x)
        skips = [x]
        for layers in self.down:
            x = self.block(layers, x, temb, context)
            skips.append(x)
        x = self.block(self.mid, x, temb, context)
        for layers in self.up:
            x = self.block(layers, torch.cat([x, skips.pop()], 1), temb, context)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, channels=(512, 512, 256, 128), latent=4):
        super().__init__()
        top = channels[0]
        self.post = nn.Conv2d(latent, latent, 1)
        self.conv_in = nn.Conv2d(latent, top, 3, padding=1)
        self.mid1, self.mid2 = ResBlock(top, top, eps=1e-6), ResBlock(top, top, eps=1e-6)
        self.norm = nn.GroupNorm(min(32, top), top, 1e-6)
        self.attn = Attention(top, 1, bias=True)
        self.up, size = nn.ModuleList(), top
        for i, out in enumerate(channels):
            for _ in range(3):
                self.up.append(ResBlock(size, out, eps=1e-6))
                size = out
            if i < len(channels) - 1:
                self.up.append(nn.Conv2d(size, size, 3, padding=1))
        self.norm_out = nn.GroupNorm(min(32, size), size, 1e-6)
        self.conv_out = nn.Conv2d(size, 3, 3, padding=1)

    def forward(self, z):
        x = self.mid1(self.conv_in(self.post(z)))
        b, c, h, w = x.shape
        y = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        x = self.mid2(x + self.attn(y).reshape(b, h, w, c).permute(0, 3, 1, 2))
        for layer in self.up:
            x = layer(x) if isinstance(layer, ResBlock) else layer(F.interpolate(x, scale_factor=2.0, mode='nearest'))
        return self.conv_out(F.silu(self.norm_out(x)))


class Text(nn.Module):
    def __init__(self, width=768, layers=12, heads=12, tokens=77, vocabulary=49408):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict({
                'norm1': nn.LayerNorm(width), 'attn': Attention(width, heads, bias=True),
                'norm2': nn.LayerNorm(width), 'fc1': nn.Linear(width, 4 * width), 'fc2': nn.Linear(4 * width, width),
            })
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        for layer in self.layers:
            x = x + layer['attn'](layer['norm1'](x), causal=True)
            h = layer['fc1'](layer['norm2'](x))
            x = x + layer['fc2'](h * torch.sigmoid(1.702 * h))
        return self.norm(x)


def timed(run, warm=3, most=30, seconds=2.0):
    """Median, fastest and count of calls in milliseconds."""
    for _ in range(warm):
        run()
    times = []
    begin = time.monotonic()
    while len(times) < 5 or (len(times) < most and time.monotonic() - begin < seconds):
        if CUDA:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            start = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - start))
    return {'warm': statistics.median(times), 'fastest': min(times), 'runs': len(times)}


def graphed(run):
    """The same as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


SMALL = options.small
side, tokens, width = (8, 8, 16) if SMALL else (64, 77, 768)


def networks():
    text = Text(16, 1, 2, 8, 560) if SMALL else Text()
    unet = UNet((8, 16), 16, 2) if SMALL else UNet()
    decoder = Decoder((16, 8)) if SMALL else Decoder()
    parameters = [sum(p.numel() for p in module.parameters()) for module in (text, unet, decoder)]
    if not SMALL and parameters != [123_060_480, 859_520_964, 49_490_199]:
        raise SystemExit(f'not the networks of Stable Diffusion 1.5: {parameters}')
    return [module.to(DEVICE, HALF).eval().requires_grad_(False) for module in (text, unet, decoder)]


def image():
    text, unet, decoder = networks()
    ids = torch.arange(tokens, device=DEVICE)[None]
    z = torch.randn(1, 4, side, side, device=DEVICE, dtype=HALF)
    words = torch.randn(1, tokens, width, device=DEVICE, dtype=HALF)
    step = torch.full((1,), 1000.0, device=DEVICE)

    def measure(name, runs, wrap=lambda run: run):
        for part, run in runs.items():
            if left() < 5:
                results['left_out'][f'{name} {part}'] = 'no time left'
                continue
            try:
                results['networks'].setdefault(name, {})[part] = timed(wrap(run))
            except Exception as error:
                results['left_out'][f'{name} {part}'] = str(error).splitlines()[0]
            save()

    def runs_of(text, unet, decoder, z):
        def whole():
            words = text(ids)
            return decoder(z + unet(z, step, words))

        return {
            'text': lambda: text(ids),
            'unet': lambda: unet(z, step, words),
            'vae': lambda: decoder(z),
            'image': whole,
        }

    with torch.inference_mode():
        measure('eager', runs_of(text, unet, decoder, z))
        unet, decoder = (module.to(memory_format=torch.channels_last) for module in (unet, decoder))
        z = z.to(memory_format=torch.channels_last)
        torch.backends.cudnn.benchmark = True
        measure('eager, channels last', runs_of(text, unet, decoder, z))
        if CUDA:
            measure('CUDA graph, channels last', runs_of(text, unet, decoder, z), graphed)


def compiled():
    if not CUDA or left() < 60:
        results['left_out']['compiled'] = 'no time left' if CUDA else 'no GPU'
        return
    text, unet, decoder = networks()
    unet, decoder = (module.to(memory_format=torch.channels_last) for module in (unet, decoder))
    ids = torch.arange(tokens, device=DEVICE)[None]
    z = torch.randn(1, 4, side, side, device=DEVICE, dtype=HALF).to(memory_format=torch.channels_last)
    step = torch.full((1,), 1000.0, device=DEVICE)
    with torch.inference_mode():
        parts = [torch.compile(module, mode='reduce-overhead') for module in (text, unet, decoder)]

        def whole():
            words = parts[0](ids).clone()
            return parts[2](z + parts[1](z, step, words).clone())

        results['networks']['compiled, channels last'] = {'image': timed(whole)}
        save()


SHAPES = [
    ('gemm', [4096, 4096, 4096]), ('gemm', [8192, 8192, 8192]), ('gemm', [16384, 512, 4608]), ('gemm', [4096, 320, 320]),
    ('gemm', [4096, 2560, 320]), ('gemm', [1024, 640, 5760]), ('gemm', [256, 10240, 1280]), ('gemm', [77, 768, 768]),
    ('conv', [512, 128, 128]), ('conv', [512, 256, 128]), ('conv', [256, 256, 256]), ('conv', [128, 512, 512]),
    ('conv', [64, 512, 512]), ('conv', [64, 320, 320]), ('conv', [32, 640, 640]), ('conv', [16, 1280, 1280]),
    ('conv', [8, 1280, 1280]), ('attention', [4096, 4096, 8, 40]), ('attention', [1024, 1024, 8, 80]),
    ('attention', [256, 256, 8, 160]), ('attention', [4096, 77, 8, 40]), ('attention', [4096, 4096, 1, 512]),
]


def shapes():
    """f16 alone: that is what the others are compared with."""
    with torch.inference_mode():
        for kind, full in SHAPES:
            if left() < 3:
                results['left_out'][f'{kind} {full}'] = 'no time left'
                continue
            shape = [min(n, 16) for n in full] if SMALL else full
            draw = lambda *sizes: torch.randn(*sizes, device=DEVICE, dtype=HALF)
            if kind == 'gemm':
                m, n, k = shape
                a, b = draw(m, k), draw(n, k)
                run, flop = (lambda: F.linear(a, b)), 2 * m * n * k
            elif kind == 'conv':
                s, c, o = shape
                x = draw(1, c, s, s).to(memory_format=torch.channels_last)
                w = draw(o, c, 3, 3).to(memory_format=torch.channels_last)
                run, flop = (lambda: F.conv2d(x, w, padding=1)), 18 * s * s * c * o
            else:
                q_len, k_len, heads, d = shape
                q, k, v = draw(1, heads, q_len, d), draw(1, heads, k_len, d), draw(1, heads, k_len, d)
                run, flop = (lambda: F.scaled_dot_product_attention(q, k, v)), 4 * q_len * k_len * heads * d
            row = timed(run, seconds=0.3)
            results['shapes'].append({'kind': kind, 'shape': shape, 'tflops': flop / row['warm'] / 1e9, **row})
            save()


def training():
    for batch, half, recompute in [(1, False, False), (4, True, True), (4, False, True)]:
        name = f'batch {batch}, {"f16" if half else "f32"}{", checkpointed" if recompute else ""}'
        if left() < 12:
            results['left_out'][name] = 'no time left'
            continue
        unet = (UNet((8, 16), 16, 2) if SMALL else UNet()).to(DEVICE, memory_format=torch.channels_last).train()
        unet.recompute = recompute
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-6, weight_decay=1e-2)
        scaler = torch.amp.GradScaler(DEVICE, enabled=half and CUDA)
        z = torch.randn(batch, 4, side, side, device=DEVICE).to(memory_format=torch.channels_last)
        target, words = torch.randn_like(z), torch.randn(batch, tokens, width, device=DEVICE)
        times = torch.full((batch,), 500.0, device=DEVICE)

        def step():
            with torch.autocast(DEVICE, torch.float16, enabled=half and CUDA):
                loss = F.mse_loss(unet(z, times, words), target)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()

        try:
            row = timed(step, most=10)
            peak = torch.cuda.max_memory_allocated() if CUDA else None
            results['training'].append({'batchSize': batch, 'mixedPrecision': 'fp16' if half else 'no', 'gradientCheckpointing': recompute, 'peak': peak, **row})
        except Exception as error:
            results['left_out'][name] = str(error).splitlines()[0]
        save()
        del unet, optimizer
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


for part in (image, shapes, training, compiled):
    try:
        part()
    except Exception as error:
        results['left_out'][part.__name__] = str(error).splitlines()[0]
    save()
