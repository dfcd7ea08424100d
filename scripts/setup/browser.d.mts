export function findBrowser(): string | undefined;
export function setUpBrowser(checkOnly: boolean): void;
