import { mount } from 'svelte'
import Powers from './Powers.svelte'

const target = document.getElementById('app')
if (target) mount(Powers, { target })
