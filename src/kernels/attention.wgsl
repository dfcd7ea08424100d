// The pieces around attention's matrix products: softmax over stored scores, its gradient, and row-wise dot products.
// scores, ds: [batch, heads, queries, keys], of a block of the queries   bias: broadcastable to all scores by its strides.
// One workgroup per row: each thread strides along the keys, then the workgroup adds up.
const THREADS = 64u;
const NEVER = -1e30;

struct Shape {
  rows: u32, keys: u32, queries: u32, firstQuery: u32, heads: u32, causal: u32, scale: f32, hasBias: u32,
  biasBatch: u32, biasHead: u32, biasQuery: u32, biasKey: u32,
}
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;

var<workgroup> partial: array<f32, THREADS>;

fn row_sum(thread: u32, mine: f32) -> f32 {
  workgroupBarrier();
  partial[thread] = mine;
  for (var step = THREADS / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (thread < step) { partial[thread] += partial[thread + step]; }
  }
  workgroupBarrier();
  return partial[0];
}
fn row_max(thread: u32, mine: f32) -> f32 {
  workgroupBarrier();
  partial[thread] = mine;
  for (var step = THREADS / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (thread < step) { partial[thread] = max(partial[thread], partial[thread + step]); }
  }
  workgroupBarrier();
  return partial[0];
}

// scores ← softmax(scale · scores + bias), in place.
@compute @workgroup_size(THREADS)
fn softmax(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= shape.rows) { return; }
  let query = row % shape.queries + shape.firstQuery;
  let head = row / shape.queries % shape.heads;
  let batch = row / (shape.queries * shape.heads);
  let first = row * shape.keys;
  let biasFirst = batch * shape.biasBatch + head * shape.biasHead + query * shape.biasQuery;
  let end = select(shape.keys, min(shape.keys, query + 1u), shape.causal != 0u);
  var top = NEVER;
  for (var key = thread; key < end; key += THREADS) {
    var score = scores[first + key] * shape.scale;
    if (shape.hasBias != 0u) { score += bias[biasFirst + key * shape.biasKey]; }
    scores[first + key] = score;
    top = max(top, score);
  }
  top = row_max(thread, top);
  var sum = 0.0;
  for (var key = thread; key < end; key += THREADS) {
    let p = exp(scores[first + key] - top);
    scores[first + key] = p;
    sum += p;
  }
  sum = row_sum(thread, sum);
  for (var key = thread; key < shape.keys; key += THREADS) {
    scores[first + key] = select(0.0, scores[first + key] / sum, key < end);
  }
}

// scores, which hold dP, ← scale · P ∘ (dP − Σ P ∘ dP), in place; P in weights.
@compute @workgroup_size(THREADS)
fn softmax_backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= shape.rows) { return; }
  let first = row * shape.keys;
  var delta = 0.0;
  for (var key = thread; key < shape.keys; key += THREADS) { delta += weights[first + key] * scores[first + key]; }
  delta = row_sum(thread, delta);
  for (var key = thread; key < shape.keys; key += THREADS) {
    scores[first + key] = shape.scale * weights[first + key] * (scores[first + key] - delta);
  }
}

// stats: [2, rows] ← logSumExp and Δ = Σ dy ∘ y over one head of a token.   One thread per (batch, head, query).
struct Rows { rows: u32, queries: u32, heads: u32, vdim: u32, yBatch: u32, yHead: u32, yToken: u32 }
@group(0) @binding(4) var<uniform> tokens: Rows;
@group(0) @binding(5) var<storage, read> y: array<f32>;
@group(0) @binding(6) var<storage, read> dy: array<f32>;
@group(0) @binding(7) var<storage, read> logSumExp: array<f32>;
@group(0) @binding(8) var<storage, read_write> stats: array<f32>;

@compute @workgroup_size(THREADS)
fn row_stats(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = (group.x + group.y * groups.x) * THREADS + thread;
  let rows = tokens.rows;
  if (row >= rows) { return; }
  let which = row / tokens.queries;
  var at = which / tokens.heads * tokens.yBatch + which % tokens.heads * tokens.yHead + row % tokens.queries * tokens.yToken;
  let end = at + tokens.vdim;
  var delta = 0.0;
  for (; at < end; at++) { delta += dy[at] * y[at]; }
  stats[row] = logSumExp[row];
  stats[rows + row] = delta;
}
