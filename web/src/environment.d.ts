/** The paths of all pages of this build, as `vite.config.ts` finds them. */
declare const __PAGES__: string[]
