import { mount } from 'svelte'
import Keys from './Keys.svelte'

const target = document.getElementById('app')
if (target) mount(Keys, { target })
