/** Numbers that look random and are the same each time (Vigna's SplitMix, halved), so that what fails can be run again. */
export function random(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x9e3779b9) | 0
    let mixed = Math.imul(seed ^ (seed >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    return ((mixed ^ (mixed >>> 15)) >>> 0) % below
  }
}
