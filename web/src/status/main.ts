import { mount } from 'svelte'
import Status from './Status.svelte'

const target = document.getElementById('app')
if (target) mount(Status, { target })
