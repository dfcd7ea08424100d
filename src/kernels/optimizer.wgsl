// One step of training: the norm of all gradients, what follows from it, and then each parameter by itself.
// Nothing is read back: whether the gradients are finite is decided here, and a step with one that is not changes nothing.
const THREADS = 64u;
const PER_THREAD = 16u;
const DECOUPLED = true;     // AdamW: weight decay acts on the weight; Adam: it joins the gradient
const NESTEROV = false;
const EMA = false;          // a running average of the parameter is kept in the same pass

struct Size { n: u32, at: u32 }
struct Decays { count: u32, log_beta1: f32, log_beta2: f32 }
struct Adam { n: u32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, eps: f32, decay: f32 }
struct Sgd { n: u32, momentum: f32, decay: f32 }

// From the CPU, once a step.
struct Control { rate: f32, max_norm: f32, ema_rest: f32, unscale: f32 }
// Kept between steps.
struct State { norm: f32, factor: f32, finite: f32, skipped: f32, steps: f32, rate: f32, root: f32, spare: f32 }

// sums[at + group] = sum of squares of the group's part of a gradient    gradient: [n]
@group(0) @binding(0) var<uniform> size: Size;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

var<workgroup> partial: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn square_sums(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
               @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  let first = index * THREADS * PER_THREAD;
  let end = min(first + THREADS * PER_THREAD, size.n);
  var sum = 0.0;
  for (var i = first + thread; i < end; i += THREADS) { sum += gradient[i] * gradient[i]; }
  sum = add_up(thread, sum);
  if (thread == 0u && first < size.n) { sums[size.at + index] = sum; }
}

// norm = unscale · √Σ,  factor = unscale · min(1, max_norm / norm),  rate = lr / (1 − β₁ᵗ),  root = 1 / √(1 − β₂ᵗ)
@group(0) @binding(0) var<uniform> decays: Decays;
@group(0) @binding(1) var<storage, read> all_sums: array<f32>;
@group(0) @binding(2) var<storage, read> control: Control;
@group(0) @binding(3) var<storage, read_write> state: State;

@compute @workgroup_size(THREADS)
fn prepare(@builtin(local_invocation_index) thread: u32) {
  var sum = 0.0;
  for (var i = thread; i < decays.count; i += THREADS) { sum += all_sums[i]; }
  sum = add_up(thread, sum);
  if (thread != 0u) { return; }
  // WGSL may assume that there is no NaN and no infinity, so look at the bits.
  let finite = (bitcast<u32>(sum) & 0x7f800000u) != 0x7f800000u;
  let norm = sqrt(sum) * control.unscale;
  state.norm = norm;
  state.finite = select(0.0, 1.0, finite);
  if (!finite) {
    state.skipped += 1.0;
    return;
  }
  let t = state.steps + 1.0;
  state.steps = t;
  state.factor = min(1.0, control.max_norm / (norm + 1e-6)) * control.unscale;
  state.rate = control.rate / one_minus_exp(t * decays.log_beta1);
  state.root = inverseSqrt(one_minus_exp(t * decays.log_beta2));
}

// 1 − eˣ for x < 0, without cancellation near 0
fn one_minus_exp(x: f32) -> f32 {
  if (x < -0.1) { return 1.0 - exp(x); }
  return -x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x / 720.0)))));
}

fn add_up(thread: u32, value: f32) -> f32 {
  partial[thread] = value;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  workgroupBarrier();
  return partial[0];
}

// m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  p ← p − rate · m / (√v · root + ε)    all [n]
@group(0) @binding(0) var<uniform> adam_size: Adam;
@group(0) @binding(1) var<storage, read> adam_control: Control;
@group(0) @binding(2) var<storage, read> adam_state: State;
@group(0) @binding(3) var<storage, read> adam_g: array<f32>;
@group(0) @binding(4) var<storage, read_write> adam_p: array<f32>;
@group(0) @binding(5) var<storage, read_write> adam_m: array<f32>;
@group(0) @binding(6) var<storage, read_write> adam_v: array<f32>;
@group(0) @binding(7) var<storage, read_write> adam_ema: array<f32>;

@compute @workgroup_size(THREADS)
fn adam(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let first = (group.x + group.y * groups.x) * THREADS * PER_THREAD;
  let end = min(first + THREADS * PER_THREAD, adam_size.n);
  let finite = adam_state.finite != 0.0;
  for (var i = first + thread; i < end; i += THREADS) {
    var p = adam_p[i];
    if (finite) {
      var g = adam_g[i] * adam_state.factor;
      if (DECOUPLED) { p -= adam_control.rate * adam_size.decay * p; } else { g += adam_size.decay * p; }
      let m = adam_size.beta1 * adam_m[i] + adam_size.rest1 * g;
      let v = adam_size.beta2 * adam_v[i] + adam_size.rest2 * g * g;
      p -= adam_state.rate * m / (sqrt(v) * adam_state.root + adam_size.eps);
      adam_m[i] = m;
      adam_v[i] = v;
      adam_p[i] = p;
    }
    if (EMA) { adam_ema[i] -= adam_control.ema_rest * (adam_ema[i] - p); }
  }
}

// u ← μ u + g,  p ← p − lr · u    (Nesterov: lr · (g + μ u))    all [n]
@group(0) @binding(0) var<uniform> sgd_size: Sgd;
@group(0) @binding(1) var<storage, read> sgd_control: Control;
@group(0) @binding(2) var<storage, read> sgd_state: State;
@group(0) @binding(3) var<storage, read> sgd_g: array<f32>;
@group(0) @binding(4) var<storage, read_write> sgd_p: array<f32>;
@group(0) @binding(5) var<storage, read_write> sgd_u: array<f32>;
@group(0) @binding(6) var<storage, read_write> sgd_ema: array<f32>;

@compute @workgroup_size(THREADS)
fn sgd(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
       @builtin(local_invocation_index) thread: u32) {
  let first = (group.x + group.y * groups.x) * THREADS * PER_THREAD;
  let end = min(first + THREADS * PER_THREAD, sgd_size.n);
  let finite = sgd_state.finite != 0.0;
  for (var i = first + thread; i < end; i += THREADS) {
    var p = sgd_p[i];
    if (finite) {
      let g = sgd_g[i] * sgd_state.factor + sgd_size.decay * p;
      let u = sgd_size.momentum * sgd_u[i] + g;
      p -= sgd_control.rate * select(u, g + sgd_size.momentum * u, NESTEROV);
      sgd_u[i] = u;
      sgd_p[i] = p;
    }
    if (EMA) { sgd_ema[i] -= sgd_control.ema_rest * (sgd_ema[i] - p); }
  }
}

// average ← average − (1 − decay)(average − p)    both [n]
@group(0) @binding(0) var<uniform> ema_size: Size;
@group(0) @binding(1) var<storage, read> ema_control: Control;
@group(0) @binding(2) var<storage, read> ema_p: array<f32>;
@group(0) @binding(3) var<storage, read_write> ema_average: array<f32>;

@compute @workgroup_size(THREADS)
fn ema(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
       @builtin(local_invocation_index) thread: u32) {
  let first = (group.x + group.y * groups.x) * THREADS * PER_THREAD;
  let end = min(first + THREADS * PER_THREAD, ema_size.n);
  for (var i = first + thread; i < end; i += THREADS) {
    ema_average[i] -= ema_control.ema_rest * (ema_average[i] - ema_p[i]);
  }
}

// g ← g · factor    g: [n]    (to look at clipped gradients; the steps above clip by themselves)
@group(0) @binding(0) var<uniform> clip_size: Size;
@group(0) @binding(1) var<storage, read> clip_state: State;
@group(0) @binding(2) var<storage, read_write> clip_g: array<f32>;

@compute @workgroup_size(THREADS)
fn clip(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let first = (group.x + group.y * groups.x) * THREADS * PER_THREAD;
  let end = min(first + THREADS * PER_THREAD, clip_size.n);
  for (var i = first + thread; i < end; i += THREADS) { clip_g[i] *= clip_state.factor; }
}
