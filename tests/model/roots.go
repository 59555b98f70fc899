package main

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/model/reference"
	"github.com/sallyport/sallyport/tests/stage"
)

// hurriedVault builds a vault that waits for two seconds where others wait for 72 hours. All else is the product's.
func hurriedVault(ctx context.Context, bin stage.Binaries, dir string) (stage.Binaries, error) {
	root, err := stage.ModuleRoot()
	if err != nil {
		return bin, err
	}
	return stage.BuildVault(ctx, root, filepath.Join(dir, "hurried"), bin, stage.Patch{
		File: "policies/succession/succession.go", From: "const Wait = 72 * time.Hour", To: "const Wait = 2 * time.Second",
	})
}

// announce has an owner's device announce a new root.
func (p *play) announce(ctx context.Context, d *device, l *Line) error {
	return d.owner.Replace(ctx, client.ReplaceOptions{Reason: succession.Reason(l.Attack), Announce: true}, p.keep(name(l.Who)))
}

// succeed has a device carry out what it announced, as one does whose clock says that the 72 hours are over: what it stored of the announcement is put back by so long. Whether
// the time is over the vault decides.
func (p *play) succeed(ctx context.Context, d *device, l *Line, e *reference.Event) error {
	if err := d.owner.Sync(ctx); err != nil { // it takes over what the chain says first
		e.Do = reference.Sync
		answer(e, err)
		return nil
	}
	if _, own := d.owner.Announced(); !own {
		e.Result = reference.NotAsked
		return nil
	}
	before := d.drawer.Copy()
	had, err := generation(d.drawer)
	if err != nil {
		return err
	}
	if err := d.age(succession.Wait + 2*policies.ClockSkew); err != nil {
		return err
	}
	e.Start = time.Now().UnixNano()
	answer(e, d.owner.Sync(ctx))
	has, err := generation(d.drawer)
	if err != nil {
		return err
	}
	if e.Result == reference.OK && has == had { // it was taken back
		e.Result = reference.NotAsked
	}
	if has > had {
		p.mu.Lock()
		p.former[name(l.Who)] = append(p.former[name(l.Who)], before)
		p.mu.Unlock()
	}
	if e.Result == "succession_pending" { // the clock is put right
		e.End = time.Now().UnixNano()
		return d.age(-succession.Wait - 2*policies.ClockSkew)
	}
	return nil
}

// age puts back the time of what a device announced, and has the device begin anew with that.
func (d *device) age(by time.Duration) error {
	stored, err := d.drawer.Load()
	if err != nil {
		return err
	}
	var state, replacing map[string]json.RawMessage
	if err := json.Unmarshal(stored, &state); err != nil {
		return err
	}
	if state["replacing"] == nil { // over
		return nil
	}
	if err := json.Unmarshal(state["replacing"], &replacing); err != nil {
		return err
	}
	var since int64
	if err := json.Unmarshal(replacing["since"], &since); err != nil {
		return err
	}
	if replacing["since"], err = json.Marshal(since - int64(by/time.Second)); err != nil {
		return err
	}
	if state["replacing"], err = json.Marshal(replacing); err != nil {
		return err
	}
	if stored, err = json.Marshal(state); err != nil {
		return err
	}
	return errors.Join(d.drawer.Save(stored), d.restart())
}

// generation is how many roots the device whose state is in a drawer has seen take the place of another.
func generation(drawer *devices.Drawer) (int, error) {
	var state struct {
		Successions []json.RawMessage `json:"successions"`
	}
	stored, err := drawer.Load()
	if err != nil {
		return 0, err
	}
	err = json.Unmarshal(stored, &state)
	return len(state.Successions), err
}

// roots are somebody who announces a new root, and what others do until its time is over: object, announce another, or replace it at once, with daemons killed and work done in between.
func (d dice) roots(s *Script, fields []string, sealed bool) (out []Line) {
	owner := d.one(s.Owners...)
	device := func() string { return owner + "/" + d.one("1", "1", "2") }
	add := func(l Line) {
		switch {
		case d.IntN(6) == 0:
			out = append(out, Line{Who: d.one("vault", "storefront", "both"), Do: reference.Kill, After: d.ms(1, 60), Length: d.ms(1, 60)})
			l.With = true
		case d.IntN(2) == 0:
			out = d.beside(out, &l, s, fields, sealed)
		}
		if d.IntN(20) == 0 {
			l.Cut = d.ms(1, 60)
		}
		out = append(out, l)
	}
	first := device()
	add(Line{Who: first, Do: reference.Announce, Attack: d.one("stolen", "lost")})
	for range 1 + d.IntN(4) {
		switch d.IntN(8) {
		case 0:
			add(Line{Who: device(), Do: reference.Object})
		case 1:
			add(Line{Who: device(), Do: reference.Announce, Attack: d.one("stolen", "lost")})
		case 2:
			add(Line{Who: device(), Do: reference.Replace, Attack: "stolen"})
		case 3:
			add(Line{Who: device(), Do: reference.Restore})
		case 4, 5:
			out = append(out, Line{Do: "wait", Length: d.ms(2100, 2400)})
			add(Line{Who: first, Do: reference.Succeed})
		case 6:
			add(Line{Who: device(), Do: reference.Sync})
		default:
			add(Line{Who: device(), Do: reference.Succeed})
		}
	}
	return append(out, Line{Who: owner + "/2", Do: reference.Sync})
}
