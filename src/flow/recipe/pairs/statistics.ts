/** Mean, deviation and extremes of each channel.   z: [N, h, w, C] */
export function channelStatistics(
  z: Float32Array,
  channels: number,
): { mean: number; deviation: number; min: number; max: number }[] {
  return Array.from({ length: channels }, (_, channel) => {
    let [n, sum, squares, min, max] = [0, 0, 0, Infinity, -Infinity];
    for (let i = channel; i < z.length; i += channels) {
      n++;
      sum += z[i];
      squares += z[i] * z[i];
      min = Math.min(min, z[i]);
      max = Math.max(max, z[i]);
    }
    const mean = sum / n;
    return { mean, deviation: Math.sqrt(Math.max(0, squares / n - mean * mean)), min, max };
  });
}
