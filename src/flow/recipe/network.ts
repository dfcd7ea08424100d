/** Networks that predict, by what their config.json calls them. */
import { UNet2DConditionModel } from '../../nn/index.ts';
import type { UNetConfig } from '../../nn/models/unet-config.ts';
import { StackedUNet } from '../../nn/models/stacked-unet.ts';

/** A U-Net, or two in a row. */
export type Network = UNet2DConditionModel | StackedUNet;

/** The network that a config.json describes. */
export const networkOf = ({ _class_name: name, ...config }: Partial<UNetConfig> & { _class_name?: string }): Network =>
  name === 'StackedUNet' ? new StackedUNet(config) : new UNet2DConditionModel(config);

/** What its config.json calls it. */
export const classNameOf = (network: Network): string =>
  network instanceof StackedUNet ? 'StackedUNet' : 'UNet2DConditionModel';
