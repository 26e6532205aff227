import type { Service } from '../../mesh/registry.ts';
import { suggestion } from '../../mesh/yaml-faults.ts';
import type { Target } from './control-client.ts';
import type { Elastic } from './elastic.ts';
import { FleetError } from './fleet-error.ts';
import type { ServiceGroup } from './group.ts';
import type { Slot } from './slot.ts';
import { slotName } from './status.ts';

/** A service of the fleet. */
export interface Member {
  group: ServiceGroup;
  elastic: Elastic;
}

const INSTANCES_MAX = 1000;

/** The services of a fleet by name, and where an order finds what it means. */
export class Members extends Map<string, Member> {
  /** @throws FleetError with the nearest name when there is none */
  find(service: string): Member {
    const member = this.get(service);
    if (member) return member;
    const names = [...this.keys()];
    throw new FleetError(
      `no service "${service}"${suggestion(service, names)}; there are: ${names.join(', ')}`,
    );
  }

  /** The slot is of a target that is an instance. @throws FleetError as `find` and `findInstance` */
  findTarget(target: Target): { group: ServiceGroup; slot?: Slot } {
    return 'service' in target
      ? { group: this.find(target.service).group }
      : this.findInstance(target.instance);
  }

  /** By its id in Consul, or by its slot. @throws FleetError with the nearest one when there is none */
  findInstance(instance: string): { group: ServiceGroup; slot: Slot } {
    const known: string[] = [];
    for (const { group } of this.values()) {
      for (const slot of group.slots) {
        const names = [slot.place?.instance, slotName(group.name, slot)];
        if (names.includes(instance)) return { group, slot };
        known.push(names[0] ?? slotName(group.name, slot));
      }
    }
    throw new FleetError(
      `no instance "${instance}"${suggestion(instance, known)}; there are: ${known.join(', ')}`,
    );
  }
}

/** @throws FleetError when a service cannot have so many instances */
export function requireCount({ name, instances, port_range }: Service, count: number): void {
  const [min, max] = typeof instances === 'number' ? [0, INSTANCES_MAX] : [instances.min, instances.max];
  if (!Number.isInteger(count) || count < min || count > max) {
    throw new FleetError(
      `${name} can have ${min} to ${max} instances, not ${count}: see instances in the registry`,
    );
  }
  const room = port_range ? port_range[1] - port_range[0] + 1 : INSTANCES_MAX;
  if (count > room) {
    throw new FleetError(
      `${count} instances of ${name} need ${count} ports: widen port_range in the registry`,
    );
  }
}
