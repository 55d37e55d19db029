/** Binary32 numbers as the readable view writes them: the shortest decimal, never with an exponent. */

const view = new DataView(new ArrayBuffer(4));

/** The number that 32 bits spell. */
export function fromBits(bits: number): number {
  view.setUint32(0, bits);
  return view.getFloat32(0);
}

// Every number here is a whole multiple of 2**-150: half of the smallest binary32.
function exact(magnitude: number): bigint {
  const exponent = magnitude >>> 23;
  const fraction = (magnitude & 0x7fffff) | (exponent ? 0x800000 : 0);
  return BigInt(fraction) << BigInt(Math.max(exponent, 1));
}

/** The shortest decimal that is nearer to this finite number than to any other; of those the nearest. */
export function decimal(bits: number): string {
  const sign = bits >>> 31 ? "-" : "";
  const magnitude = bits & 0x7fffffff;
  if (magnitude === 0) return `${sign}0`;
  // In units of 10**-150 * 2**-151, in which halves and tenths are whole.
  const scale = 10n ** 150n;
  const value = exact(magnitude) * 2n * scale;
  const low = (exact(magnitude - 1) + exact(magnitude)) * scale;
  const high = (exact(magnitude + 1) + exact(magnitude)) * scale;
  const one = scale << 151n;
  const even = magnitude % 2 === 0;
  const power = (exponent: number): bigint =>
    exponent >= 0 ? one * 10n ** BigInt(exponent) : one / 10n ** BigInt(-exponent);
  let exponent = 0; // value < 10 ** exponent, and not below a tenth of it
  while (value >= power(exponent)) exponent += 1;
  while (value < power(exponent - 1)) exponent -= 1;
  for (let digits = 1; ; digits++) {
    const unit = power(exponent - digits);
    const floor = value / unit;
    const fits = [floor, floor + 1n].filter((n) => {
      const at = n * unit;
      return (low < at && at < high) || (even && (at === low || at === high));
    });
    const [first, second] = fits;
    if (first === undefined) continue;
    const nearest = second !== undefined && second * unit - value < value - first * unit ? second : first;
    return sign + plain(nearest, exponent - digits);
  }
}

function plain(number: bigint, power: number): string {
  if (power >= 0) return number.toString() + "0".repeat(power);
  const text = number.toString().padStart(1 - power, "0");
  const part = text.slice(power).replace(/0+$/, "");
  return part ? `${text.slice(0, power)}.${part}` : text.slice(0, power);
}
