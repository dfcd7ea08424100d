// y = f(a, b, c; s, t) element by element.    y: [n]   a, b, c: [n], or broadcast to the shape of y
// Arrays go four numbers at a time; buffers are padded to 256 bytes, so what lies behind the last number harms nobody.
const THREADS = 256u;
const PER_THREAD = 4u;     // vec4s for each thread
const ARITY = 3u;          // operands in use
const RANK = 4u;           // axes in use in `broadcast` and `gather`, the last ones of four

struct Shape { n: u32, s: f32, t: f32 }                    // n counts vec4s of y
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a4: array<vec4f>;
@group(0) @binding(2) var<storage, read> b4: array<vec4f>;
@group(0) @binding(3) var<storage, read> c4: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y4: array<vec4f>;

alias V = f32;             // what f takes and gives
fn f(a: f32, b: f32, c: f32, s: f32, t: f32) -> f32 { return a; }

fn each(a: vec4f, b: vec4f, c: vec4f, s: f32, t: f32) -> vec4f {
  return vec4f(f(a.x, b.x, c.x, s, t), f(a.y, b.y, c.y, s, t), f(a.z, b.z, c.z, s, t), f(a.w, b.w, c.w, s, t));
}

@compute @workgroup_size(THREADS)
fn same(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let first = (group.x + group.y * groups.x) * THREADS * PER_THREAD + thread;
  let end = min(first + THREADS * PER_THREAD, shape.n);
  for (var i = first; i < end; i += THREADS) {
    var b = vec4f();
    var c = vec4f();
    if (ARITY > 1u) { b = b4[i]; }
    if (ARITY > 2u) { c = c4[i]; }
    y4[i] = each(a4[i], b, c, shape.s, shape.t);
  }
}

// Sizes of the last three of four axes, and what a step along each axis adds to the place in a, b and c (0: broadcast).
struct Strides {
  n: u32, s: f32, t: f32, d1: u32, d2: u32, d3: u32,
  a0: u32, a1: u32, a2: u32, a3: u32, b0: u32, b1: u32, b2: u32, b3: u32, c0: u32, c1: u32, c2: u32, c3: u32,
}
@group(0) @binding(0) var<uniform> strides: Strides;

fn coordinates(i: u32) -> vec4u {
  var at = vec4u(0u, 0u, 0u, i);
  if (RANK > 1u) { at.z = at.w / strides.d3; at.w -= at.z * strides.d3; }
  if (RANK > 2u) { at.y = at.z / strides.d2; at.z -= at.y * strides.d2; }
  if (RANK > 3u) { at.x = at.y / strides.d1; at.y -= at.x * strides.d1; }
  return at;
}

fn place(at: vec4u, s0: u32, s1: u32, s2: u32, s3: u32) -> u32 {
  var p = at.w * s3;
  if (RANK > 1u) { p += at.z * s2; }
  if (RANK > 2u) { p += at.y * s1; }
  if (RANK > 3u) { p += at.x * s0; }
  return p;
}

// The last axis is a multiple of 4: sizes and strides count vec4s; an operand that broadcasts along it is one number.
const A_SPLAT = false;
const B_SPLAT = false;
const C_SPLAT = false;
@compute @workgroup_size(THREADS)
fn broadcast(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
             @builtin(local_invocation_index) thread: u32) {
  let first = (group.x + group.y * groups.x) * THREADS * PER_THREAD + thread;
  let end = min(first + THREADS * PER_THREAD, strides.n);
  for (var i = first; i < end; i += THREADS) {
    let at = coordinates(i);
    var b = vec4f();
    var c = vec4f();
    var p = place(at, strides.a0, strides.a1, strides.a2, strides.a3);
    var a = a4[select(p, p / 4u, A_SPLAT)];
    if (A_SPLAT) { a = vec4f(a[p % 4u]); }
    if (ARITY > 1u) {
      p = place(at, strides.b0, strides.b1, strides.b2, strides.b3);
      b = b4[select(p, p / 4u, B_SPLAT)];
      if (B_SPLAT) { b = vec4f(b[p % 4u]); }
    }
    if (ARITY > 2u) {
      p = place(at, strides.c0, strides.c1, strides.c2, strides.c3);
      c = c4[select(p, p / 4u, C_SPLAT)];
      if (C_SPLAT) { c = vec4f(c[p % 4u]); }
    }
    y4[i] = each(a, b, c, strides.s, strides.t);
  }
}

// Any sizes: sizes and strides count numbers, n still vec4s.
@group(0) @binding(1) var<storage, read> a_numbers: array<f32>;
@group(0) @binding(2) var<storage, read> b_numbers: array<f32>;
@group(0) @binding(3) var<storage, read> c_numbers: array<f32>;
@compute @workgroup_size(THREADS)
fn gather(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  if (i >= strides.n) { return; }
  var y = vec4f();
  for (var lane = 0u; lane < 4u; lane++) {
    let at = coordinates(4u * i + lane);
    let a = a_numbers[place(at, strides.a0, strides.a1, strides.a2, strides.a3)];
    var b = 0.0;
    var c = 0.0;
    if (ARITY > 1u) { b = b_numbers[place(at, strides.b0, strides.b1, strides.b2, strides.b3)]; }
    if (ARITY > 2u) { c = c_numbers[place(at, strides.c0, strides.c1, strides.c2, strides.c3)]; }
    y[lane] = f(a, b, c, strides.s, strides.t);
  }
  y4[i] = y;
}

// Functions that rows of the tables use. Accurate to a few units in the last place, and free of overflow.

// Comparisons and max() may assume that there is no NaN; bits do not lie.
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

fn larger(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, is_nan(b)), a, is_nan(a)); }

fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn log1p_small(e: f32) -> f32 {        // log(1 + e) for 0 ≤ e ≤ 1
  let s = e / (2.0 + e);
  let q = s * s;
  let tail = 1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0));
  return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (0.2 + q * tail)));
}

fn softplus(x: f32) -> f32 { return max(x, 0.0) + log1p_small(exp(-abs(x))); }

fn tanh_of(x: f32) -> f32 {
  let q = x * x;
  let small = x * (1.0 - q * (1.0 / 3.0 - q * (2.0 / 15.0 - q * (17.0 / 315.0))));
  let e = exp(-2.0 * abs(x));
  return select(sign(x) * (1.0 - e) / (1.0 + e), small, abs(x) < 0.15);
}

// Press et al. 1992, Numerical Recipes, §6.2 (erfcc): relative error below 1.2e-7 everywhere.
fn erfc(x: f32) -> f32 {
  let z = select(min(abs(x), 16.0), x, is_nan(x));
  let t = 1.0 / (1.0 + 0.5 * z);
  let p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 +
          t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
  let e = t * exp(-z * z) * exp(p);
  return select(2.0 - e, e, x >= 0.0);
}

fn erf(x: f32) -> f32 {
  let q = x * x;
  let tail = 1.0 / 42.0 - q * (1.0 / 216.0 - q / 1320.0);
  let small = 1.1283791671 * x * (1.0 - q * (1.0 / 3.0 - q * (0.1 - q * tail)));
  return select(1.0 - erfc(x), small, abs(x) < 0.5);
}

// sin(x) and cos(x) = sin with a quarter turn more: x − k·π/2 in three parts, then cephes' sinf and cosf polynomials.
// Where k·π/2 is no longer known well enough, the answer is NaN.
fn sine(x: f32, quarter: u32) -> f32 {
  let k = round(x * 0.6366197724);
  let r = ((x - k * 1.5703125) - k * 4.8375129699707031e-4) - k * 7.549789948768648e-8;
  let q = r * r;
  let odd = r + r * q * (-1.6666654611e-1 + q * (8.3321608736e-3 - q * 1.9515295891e-4));
  let even = 1.0 - 0.5 * q + q * q * (4.166664568298827e-2 + q * (-1.388731625493765e-3 + q * 2.443315711809948e-5));
  let turn = (u32(i32(k)) + quarter) & 3u;
  let v = select(odd, even, (turn & 1u) == 1u);
  if (abs(x) > 131072.0) { return bitcast<f32>(select(0x7fc00000u, 0u, x == 0.0)); }   // NaN, hidden from the compiler
  return select(v, -v, turn >= 2u);
}

// x^p where WGSL's pow leaves negative and zero x open; NaN for a negative x with a fraction p.
fn power(x: f32, p: f32) -> f32 {
  if (p == 0.0) { return 1.0; }
  if (is_nan(p)) { return p; }
  if (x == 0.0) { return select(1.0 / abs(x), 0.0, p > 0.0); }
  // NaN, hidden from the compiler.
  if (x < 0.0 && x >= -3.4028234e38 && floor(p) != p) { return bitcast<f32>(select(0x7fc00000u, 0u, x == 0.0)); }
  let v = pow(abs(x), p);
  return select(v, -v, x < 0.0 && abs(p % 2.0) == 1.0);
}
