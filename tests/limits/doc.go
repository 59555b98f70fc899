// Package limits shows what callers can take who mean no good: what those fill who send nothing but what is refused, how long slow ones are
// waited for, what idle ones hold, and that others are served meanwhile. Real daemons run with their default limits.
//
// In CI the tests last seconds. With -measure they last as long as that says, and log figures; tests/limits/run does so.
package limits
