/** Networks that predict, by what their config.json calls them. */
import { StackedUNet } from './stacked-unet.ts';
import type { StackedUNetConfig } from './stacked-unet.ts';
import { UNet2DConditionModel } from './unet.ts';

/** A U-Net, or two in a row. */
export type Network = UNet2DConditionModel | StackedUNet;

/** A config.json; without `_class_name` it is a U-Net's. */
export type NetworkConfig = Partial<StackedUNetConfig> & { _class_name?: string };

/** The network that a config.json describes. */
export const networkOf = ({ _class_name: name, ...config }: NetworkConfig): Network =>
  name === 'StackedUNet' ? new StackedUNet(config) : new UNet2DConditionModel(config);

/** What its config.json calls it. */
export const classNameOf = (network: Network): string =>
  network instanceof StackedUNet ? 'StackedUNet' : 'UNet2DConditionModel';
