package main

import (
	"context"
	"errors"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/model/reference"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// Which of the sheets that an owner ever had printed.
const (
	newest = "newest"
	older  = "older"
)

// sheet is a recovery sheet on paper.
type sheet struct {
	number int // of the line that printed it
	kit    *password.Kit
}

// claim is what a device claims that changes the account: nothing, or whatever it takes.
func (l *Line) claim() client.Claim {
	if l.Again {
		return client.ClaimAll
	}
	return client.ClaimNothing
}

// print has an owner print a recovery sheet. One whose answer was lost is on no paper.
func (p *play) print(ctx context.Context, d *device, l *Line, e *reference.Event) {
	kit, ended, err := d.owner.NewKit(ctx, p.keys, l.claim(), l.Do == reference.KitReplace)
	answer(e, err)
	if err != nil {
		return
	}
	e.Over = ended
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sheets[name(l.Who)] = append(p.sheets[name(l.Who)], sheet{e.Number, kit})
}

// sheet is the one that a line means: of nobody, if there is none.
func (p *play) sheet(l *Line) sheet {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.sheets[name(l.Who)]
	if l.Attack == older && len(list) > 0 {
		list = list[:len(list)-1]
	}
	if len(list) == 0 {
		return sheet{0, password.NewKit()}
	}
	return list[len(list)-1]
}

// switchOff does what the command does after a replacement.
func (p *play) switchOff(ctx context.Context, d *device, e *reference.Event) {
	if !d.owner.AccountOutdated() {
		e.Result = reference.NotAsked
		return
	}
	answer(e, d.owner.SwitchOff(ctx))
}

// rescue makes a device anew with a sheet. It was lost, so what it had is gone; if the sheet opens nothing it turns up again.
func (p *play) rescue(ctx context.Context, d *device, l *Line, e *reference.Event) {
	s := p.sheet(l)
	e.Number = s.number
	drawer := new(devices.Drawer)
	id := p.owners[name(l.Who)]
	o, err := client.RestoreFromAccount(ctx, drawer, p.network, client.WayBack{Server: p.keys, Owner: id, Kit: s.kit}, client.Options{})
	if err == nil && o.ID() != id {
		err = errors.New("the profile is of somebody else")
	}
	if answer(e, err); err != nil {
		return
	}
	d.owner.Close()
	d.owner, d.drawer = o, drawer
}

// sheets are an owner who prints one, and what becomes of it: tested, replaced, switched off, outdated by a new root; and devices that are made anew with it.
func (d dice) sheets(s *Script, fields []string, sealed bool) (out []Line) {
	owner := d.one(s.Owners...)
	device := func() string { return owner + "/" + d.one("1", "1", "2") }
	add := func(l Line) {
		switch {
		case d.IntN(6) == 0 && len(out) > 0 && l.Do != reference.Sync:
			out = append(out, Line{Who: d.one("keys", "keys", "storefront", "vault"), Do: reference.Kill, After: d.ms(1, 120), Length: d.ms(1, 40)})
			l.With = true
		case d.IntN(5) == 0:
			out = d.beside(out, &l, s, fields, sealed)
		}
		if d.IntN(20) == 0 && l.Do != reference.Sync && l.Do != reference.Rescue {
			l.Cut = d.ms(1, 120)
		}
		out = append(out, l)
	}
	add(Line{Who: device(), Do: reference.KitPrint, Again: d.IntN(3) == 0})
	for range 3 + d.IntN(5) {
		switch d.IntN(12) {
		case 0:
			add(Line{Who: device(), Do: reference.KitPrint, Again: d.IntN(2) == 0})
		case 1:
			add(Line{Who: device(), Do: reference.KitReplace, Again: d.IntN(2) == 0})
		case 2:
			add(Line{Who: device(), Do: reference.KitOff, Again: d.IntN(2) == 0})
		case 3, 4:
			add(Line{Who: device(), Do: reference.KitTest, Attack: d.one(newest, newest, older)})
		case 5:
			add(Line{Who: device(), Do: reference.Password, Attack: d.one("one", "two"), Again: d.IntN(2) == 0})
		case 6:
			add(Line{Who: owner, Do: reference.Guess, Attack: d.one("one", "two")})
		case 7:
			who := device()
			add(Line{Who: who, Do: reference.Replace, Attack: d.one("stolen", "lost")})
			if d.IntN(3) > 0 {
				add(Line{Who: who, Do: reference.SwitchOff})
			}
			if d.IntN(2) == 0 {
				add(Line{Who: owner + "/" + map[string]string{"1": "2", "2": "1"}[who[len(who)-1:]], Do: reference.Restore})
			}
		default:
			l := Line{Who: device(), Do: reference.Rescue, Attack: d.one(newest, newest, newest, older)}
			add(l)
			add(Line{Who: l.Who, Do: reference.Sync})
		}
	}
	return out
}
