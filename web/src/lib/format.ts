/** Numbers and times for people. Pure: `now` and the locale are arguments. */

/** "0.34 s", "12.3 s", "4 min 05 s", "2 h 03 min", "1 d 4 h". */
export function duration(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return '–'
  const s = Math.max(0, seconds)
  if (s < 10) return `${s.toFixed(2)} s`
  if (s < 59.95) return `${s.toFixed(1)} s`
  const whole = Math.round(s)
  const two = (n: number) => String(n).padStart(2, '0')
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`
}

/** The same for what still goes on: whole seconds, so that it does not flicker. */
export function elapsed(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  return whole < 60 ? `${whole} s` : duration(whole)
}

const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** "0 B", "812 B", "1.4 KiB", "3.0 GiB". */
export function bytes(count: number): string {
  if (count < 1024) return `${count} B`
  let value = count
  let unit = -1
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${value.toFixed(value < 99.95 ? 1 : 0)} ${units[unit]}`
}

const steps: [Intl.RelativeTimeFormatUnit, number][] = [['day', 86_400], ['hour', 3600], ['minute', 60], ['second', 1]]

/** "5 sec. ago", "vor …" by locale; below a second it is `just`. */
export function ago(time: string, now: number, locale: string, just: string): string {
  const seconds = Math.round((now - Date.parse(time)) / 1000)
  const [unit, size] = steps.find(([, step]) => Math.abs(seconds) >= step) ?? ['second', 1]
  if (Math.abs(seconds) < 1) return just
  return new Intl.RelativeTimeFormat(locale, { style: 'short' }).format(-Math.trunc(seconds / size), unit)
}

/** The local date and time to the second, for titles. */
export function moment(time: string, locale: string): string {
  return new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'medium' }).format(new Date(time))
}

/** "14:02:09.123", the local wall time of a log line. */
export function clock(time: string): string {
  const at = new Date(time)
  if (Number.isNaN(at.getTime())) return ''
  const two = (n: number) => String(n).padStart(2, '0')
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`
}

export function number(value: number, locale: string): string {
  return new Intl.NumberFormat(locale).format(value)
}

/**
 * The part of an id that people see and the CLI accepts. Ids are UUIDv7: the first 13 characters
 * are the millisecond, so the first eight alone would be the same for all runs of a minute.
 */
export function shortId(id: string): string {
  return id.slice(0, 13)
}
