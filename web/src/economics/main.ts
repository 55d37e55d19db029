import { mount } from 'svelte'
import Economics from './Economics.svelte'

const target = document.getElementById('app')
if (target) mount(Economics, { target })
