import { mount } from 'svelte'
import Governance from './Governance.svelte'

const target = document.getElementById('app')
if (target) mount(Governance, { target })
