// Package fault is the tests that take the machine away from under a Sallyport: processes killed at random moments, power cut under a file
// system that has not flushed, errors injected into system calls, disks that fill up, bits that flip. Everything that runs is real.
// It holds no code but tests; README.md says what each of them claims and how to run the long ones.
//
// A test here is random and bounded. It logs its seed; -seed or the environment variable SALLYPORT_SEED sets it. What ran at the same time on
// two processors does not come back with a seed, but what was asked for, and when the blow fell, does.
//
// Files that carry the build tag root need root, loop devices and mkfs.ext4, and fail where those are not.
package fault
