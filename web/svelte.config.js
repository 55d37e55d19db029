import { vitePreprocess } from '@sveltejs/vite-plugin-svelte'

export default {
  preprocess: vitePreprocess({ style: false }),
  // `tree` builds elements one by one: the pages' Trusted Types policy lets nobody parse HTML, Svelte included.
  compilerOptions: { runes: true, fragments: 'tree' },
}
