import { mount } from 'svelte'
import Network from './Network.svelte'

const target = document.getElementById('app')
if (target) mount(Network, { target })
