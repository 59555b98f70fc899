package main

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/tests/stage"
)

// TestManyGrants is ./tests/load/run --grants, with few: the token holds none of their keys, and the vault is back within seconds after kill -9.
func TestManyGrants(t *testing.T) {
	module, err := stage.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin, err := stage.Build(t.Context(), module, filepath.Join(dir, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := measureGrants(t.Context(), 300, bin, filepath.Join(dir, "stage"), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if f.TokenObjects == 0 || f.TokenObjects >= 20 {
		t.Errorf("the token holds %d objects", f.TokenObjects)
	}
	for _, start := range []Start{f.Killed, f.KilledReading, f.Stopped, f.Storefront} {
		if start.Ready > 5 {
			t.Errorf("ready after %.1f s", start.Ready)
		}
	}
	if f.Opened < 2 || f.ColdReads == 0 || f.WarmReads == 0 {
		t.Errorf("read %+v", f)
	}
	t.Logf("%+v", f)
}

func TestJudge(t *testing.T) {
	good := Restart{Grants: 100_000, TokenObjects: 19, Killed: Start{Ready: 5}}
	for what, f := range map[string]Restart{
		"many objects": {Grants: 10, TokenObjects: 20}, "a slow start": {Grants: 100_000, Killed: Start{Ready: 5.1}}, "a slow storefront": {Grants: 1, Storefront: Start{Ready: 9}},
	} {
		if f.judge() == nil {
			t.Errorf("%s: nothing is said", what)
		}
	}
	more := Restart{Grants: 200_000, TokenObjects: 10, Stopped: Start{Ready: 9}}
	if err := errors.Join(good.judge(), more.judge()); err != nil {
		t.Error(err)
	}
}
