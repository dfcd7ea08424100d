/**
 * Runs in the page: under the pointer, or with the arrow keys, all charts of a stage show their values at one step.
 * Its text goes into the page as it is, so it uses nothing from outside.
 */
export function hover(): void {
  interface Shown {
    x0: number;
    x1: number;
    y0: number;
    y1: number;
    logY: boolean;
    left: number;
    right: number;
    top: number;
    bottom: number;
    lines: { key: string; name: string }[];
  }
  const written = (value: number) => {
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  };
  for (const stage of document.querySelectorAll('section[data-values]')) {
    const values = JSON.parse(stage.getAttribute('data-values')!) as Record<string, (number | null)[]>;
    const steps = values.step as number[];
    const charts = [...stage.querySelectorAll<SVGSVGElement>('svg[data-chart]')].map((svg) => ({
      svg,
      shown: JSON.parse(svg.getAttribute('data-chart')!) as Shown,
      output: svg.parentElement!.querySelector('output')!,
    }));
    let at = -1;
    const show = (index: number) => {
      at = Math.max(0, Math.min(steps.length - 1, index));
      for (const { svg, shown, output } of charts) {
        const { x0, x1, y0, y1, logY, left, right, top, bottom } = shown;
        const x = left + ((steps[at] - x0) / (x1 - x0)) * (right - left);
        const cross = svg.querySelector('.cross')!;
        cross.setAttribute('d', `M${x} ${top}V${bottom}`);
        cross.setAttribute('visibility', 'visible');
        const words = shown.lines.map(({ key, name }, i) => {
          const value = values[key][at];
          const share =
            value === null ? NaN : logY ? Math.log(value / y0) / Math.log(y1 / y0) : (value - y0) / (y1 - y0);
          const dot = svg.querySelectorAll('circle')[i];
          const isInside = share >= 0 && share <= 1;
          dot.setAttribute('visibility', isInside ? 'visible' : 'hidden');
          if (isInside) {
            dot.setAttribute('cx', String(x));
            dot.setAttribute('cy', String(bottom - share * (bottom - top)));
          }
          return `${name} ${value === null ? 'not a number' : written(value)}`.trim();
        });
        output.textContent = `step ${steps[at]}: ${words.join(', ')}`;
      }
    };
    const hide = () => {
      at = -1;
      for (const { svg, output } of charts) {
        output.textContent = '';
        for (const mark of svg.querySelectorAll('.cross, circle')) mark.setAttribute('visibility', 'hidden');
      }
    };
    for (const { svg, shown } of charts) {
      svg.addEventListener('pointermove', (event) => {
        const box = svg.getBoundingClientRect();
        const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
        const step = shown.x0 + ((x - shown.left) / (shown.right - shown.left)) * (shown.x1 - shown.x0);
        const later = steps.findIndex((s) => s >= step);
        const index = later < 0 ? steps.length - 1 : later;
        show(index > 0 && step - steps[index - 1] < steps[index] - step ? index - 1 : index);
      });
      svg.addEventListener('pointerleave', hide);
      svg.addEventListener('blur', hide);
      svg.addEventListener('keydown', ({ key }) => {
        if (key === 'ArrowRight') show(at + 1);
        if (key === 'ArrowLeft') show(at < 0 ? steps.length - 1 : at - 1);
      });
    }
  }
}
